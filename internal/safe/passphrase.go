package safe

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime/debug"

	"golang.org/x/crypto/argon2"

	"postern/internal/fail"
	"postern/internal/secret"
)

// cost is what one guess of a passphrase costs. It is kept in the salt, so that
// a safe opens with the cost that it was made with.
type cost struct {
	memoryKiB uint32
	passes    uint32
	lanes     uint8
}

// today is the cost for new safes: the second choice of RFC 9106 §4 with one
// lane, because one guess then keeps one core of the attacker busy for longer.
// About 0.15 s.
func today() cost { return cost{memoryKiB: 64 << 10, passes: 3, lanes: 1} }

// costHead is the form of a passphrase's salt: 1, memory, passes, lanes.
const (
	costForm  = 1
	costBytes = 1 + 4 + 4 + 1
)

type passphrase struct {
	ask  func() (secret.Value, error)
	cost cost
}

// Passphrase is a key made from what ask returns, by Argon2id with 64 MiB and
// three passes. ask is called once for each Key.
func Passphrase(ask func() (secret.Value, error)) Root { return passphrase{ask, today()} }

func (p passphrase) Kind() string { return KindPassphrase }

func (p passphrase) NewSalt() ([]byte, error) {
	random, err := newSalt()
	if err != nil {
		return nil, err
	}
	head := []byte{costForm}
	head = binary.BigEndian.AppendUint32(head, p.cost.memoryKiB)
	head = binary.BigEndian.AppendUint32(head, p.cost.passes)
	return append(append(head, p.cost.lanes), random...), nil
}

// parseCost reads the head of a salt. The bounds keep a tampered safe from
// exhausting the machine.
func parseCost(salt []byte) (cost, error) {
	if len(salt) != costBytes+saltBytes || salt[0] != costForm {
		return cost{}, fmt.Errorf("the salt of the passphrase has an unknown form (%d bytes)", len(salt))
	}
	c := cost{binary.BigEndian.Uint32(salt[1:]), binary.BigEndian.Uint32(salt[5:]), salt[9]}
	if c.memoryKiB < 8<<10 || c.memoryKiB > 1<<20 || c.passes < 1 || c.passes > 16 || c.lanes < 1 || c.lanes > 16 {
		return cost{}, fmt.Errorf("the cost of the passphrase is out of bounds (%d KiB, %d passes, %d lanes)", c.memoryKiB, c.passes, c.lanes)
	}
	return c, nil
}

func (p passphrase) Key(ctx context.Context, salt []byte) (secret.Value, error) {
	c, err := parseCost(salt)
	if err != nil {
		return secret.Value{}, fail.New(fail.Invalid, "P-E065", "could not open the safe").Wrap(err)
	}
	phrase, err := p.ask()
	if err != nil {
		return secret.Value{}, err
	}
	if err := ctx.Err(); err != nil {
		return secret.Value{}, err
	}
	if phrase.IsZero() {
		return secret.Value{}, fail.New(fail.Invalid, "P-E077", "could not take the passphrase").Because("it is empty")
	}
	var key []byte
	err = phrase.Reveal(func(b []byte) error {
		key = argon2.IDKey(b, salt, c.passes, c.memoryKiB, c.lanes, keyBytes)
		return nil
	})
	defer clear(key)
	debug.FreeOSMemory() // the 64 MiB must not stay in a daemon
	return secret.New(key), err
}
