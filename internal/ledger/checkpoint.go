package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// checkpoint is what a signed note about the ledger says (C2SP tlog-checkpoint).
type checkpoint struct {
	size uint64
	root hash
}

const algEd25519 = 1 // the signature type of Ed25519 in a signed note (C2SP signed-note)

// signer signs checkpoints. Its name is the ledger's origin line.
type signer struct {
	key  ed25519.PrivateKey
	name string
}

// origin names a ledger by its key: two installations never share one.
func origin(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return "postern-ledger-" + hex.EncodeToString(sum[:6])
}

func newSigner(key ed25519.PrivateKey) *signer {
	return &signer{key: key, name: origin(key.Public().(ed25519.PublicKey))}
}

// Name is the name in the signature line.
func (s *signer) Name() string { return s.name }

// KeyHash is the key's short hash in the signature line.
func (s *signer) KeyHash() uint32 {
	h := sha256.New()
	h.Write([]byte(s.name + "\n"))
	h.Write([]byte{algEd25519})
	h.Write(s.key.Public().(ed25519.PublicKey))
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// Sign signs the text of a note.
func (s *signer) Sign(message []byte) ([]byte, error) { return ed25519.Sign(s.key, message), nil }

// PublicKey is the public half of key in the form of a signed note's verifier
// key ("name+hash+base64"). It is what ledger.pub holds and Verify takes.
func PublicKey(key ed25519.PrivateKey) string {
	public := key.Public().(ed25519.PublicKey)
	text, err := note.NewEd25519VerifierKey(origin(public), public)
	if err != nil { // a key of the wrong length, which Ed25519 would not have made
		return ""
	}
	return text
}

func (s *signer) sign(c checkpoint) ([]byte, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", s.name, c.size, base64.StdEncoding.EncodeToString(c.root[:]))
	return note.Sign(&note.Note{Text: text}, s)
}

// openCheckpoint checks the signature and reads the checkpoint.
func openCheckpoint(data []byte, verifier note.Verifier) (checkpoint, error) {
	n, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return checkpoint{}, err
	}
	// Bits that no decoder looks at must not be free to change.
	if _, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64); err != nil {
		return checkpoint{}, errors.New("its signature is not written as it should be")
	}
	c, name, err := parseCheckpoint(n.Text)
	if err == nil && name != verifier.Name() {
		err = errors.New("it is about another ledger")
	}
	return c, err
}

// peekCheckpoint reads a checkpoint without checking its signature.
func peekCheckpoint(data []byte) (checkpoint, error) {
	text, _, found := strings.Cut(string(data), "\n\n")
	if !found {
		return checkpoint{}, errors.New("it is not a signed note")
	}
	c, _, err := parseCheckpoint(text + "\n")
	return c, err
}

func parseCheckpoint(text string) (c checkpoint, name string, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[0] == "" {
		return checkpoint{}, "", errors.New("it is not a checkpoint")
	}
	if c.size, err = strconv.ParseUint(lines[1], 10, 64); err != nil || strconv.FormatUint(c.size, 10) != lines[1] {
		return checkpoint{}, "", errors.New("its size is not a number")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(c.root) {
		return checkpoint{}, "", errors.New("its root is not a hash")
	}
	copy(c.root[:], root)
	return c, lines[0], nil
}
