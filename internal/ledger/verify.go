package ledger

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"postern/internal/event"
	"postern/internal/fail"
)

// maxProblems bounds a report: after so many it is plain that it is bad.
const maxProblems = 20

// Problem is one thing that is wrong with a ledger.
type Problem struct {
	Seq  uint64 `json:"seq,omitempty"` // of the first entry it is about; 0 for none
	File string `json:"file"`
	Text string `json:"text"`
}

// Report is what Verify found.
type Report struct {
	Entries   uint64    `json:"entries"`
	Signed    uint64    `json:"signed"`         // entries that the checkpoint covers
	Root      string    `json:"root,omitempty"` // that it names, in base64
	First     time.Time `json:"first,omitzero"`
	Last      time.Time `json:"last,omitzero"`
	Witnessed int       `json:"witnessed"` // earlier checkpoints that this ledger continues
	Problems  []Problem `json:"problems"`
	FirstBad  uint64    `json:"first_bad,omitempty"` // lowest sequence number with a problem
	// CutOff are files with bytes that a power cut left unreadable at the end of
	// the journal, and Torn the bytes of a record that a kill left unfinished.
	CutOff []string `json:"cut_off,omitempty"`
	Torn   int      `json:"torn_bytes,omitempty"`
}

// OK says whether nothing is wrong.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// Limits are what the report does not prove, in sentences for a person.
func (r Report) Limits() []string {
	var limits []string
	if r.Witnessed == 0 {
		limits = append(limits, "Not checked against a witness: whoever holds the signing key could have rewritten the whole ledger, "+
			"or put an older one in its place. A checkpoint kept where the agent cannot write shows that.")
	}
	if n := r.Entries - min(r.Signed, r.Entries); n > 0 {
		limits = append(limits, fmt.Sprintf("The last %d entries are not signed yet; that happens within a second of writing, "+
			"or when the ledger is opened next.", n))
	}
	return limits
}

func (r *Report) add(seq uint64, file, text string, args ...any) {
	if seq > 0 && (r.FirstBad == 0 || seq < r.FirstBad) {
		r.FirstBad = seq
	}
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, Problem{seq, file, fmt.Sprintf(text, args...)})
	}
}

// Verify checks everything in the directory: each entry's hash, sequence and
// time, tiles and bundles, the root and its signature. key is the text of
// ledger.pub; witnessed are checkpoints that were kept elsewhere, which this
// ledger must continue. What is wrong stands in the report; the error says why
// there is none. Others may go on writing meanwhile.
func Verify(ctx context.Context, name, key string, witnessed ...[]byte) (Report, error) {
	verifier, err := note.NewVerifier(strings.TrimSpace(key))
	if err != nil {
		return Report{}, fail.New(fail.Invalid, "P-E146", "could not verify the ledger").
			Because("the public key is not one: %v", err)
	}
	v := &verification{ctx: ctx, report: Report{Problems: []Problem{}}}
	if v.view, err = openRaw(name); err != nil {
		return Report{}, err
	}
	defer func() { _ = v.view.dir.close() }()
	v.openSigned(verifier, witnessed)
	if err := v.entries(); err != nil {
		return Report{}, err
	}
	v.partials()
	if err := v.leftovers(); err != nil {
		return Report{}, err
	}
	return v.report, nil
}

// verification grows a tree from the entries and holds everything else in the
// directory against it.
type verification struct {
	ctx    context.Context
	view   *view
	report Report
	points []point // roots to be met, by size
	good   uint64  // size of the last one that was met

	tree    tree
	bundle  []byte // the unfinished bundle
	prefix  []byte
	base    tree // that the journal's header claims
	started bool // base was met
	signed  tree // when the checkpoint's size was met
	partial []byte
}

// point is a root that the tree must have at its size.
type point struct {
	checkpoint
	file    string
	witness bool
}

func (v *verification) openSigned(verifier note.Verifier, witnessed [][]byte) {
	if v.view.checkpoint != nil {
		c, err := openCheckpoint(v.view.checkpoint, verifier)
		if err != nil {
			v.report.add(0, checkpointFile, "its signature or its text is wrong: %v", err)
		} else {
			v.report.Signed, v.report.Root = c.size, base64.StdEncoding.EncodeToString(c.root[:])
			v.points = append(v.points, point{c, checkpointFile, false})
		}
	}
	for i, data := range witnessed {
		file := fmt.Sprintf("witnessed checkpoint %d", i+1)
		c, err := openCheckpoint(data, verifier)
		if err != nil {
			v.report.add(0, file, "its signature or its text is wrong: %v", err)
			continue
		}
		v.points = append(v.points, point{c, file, true})
	}
	slices.SortStableFunc(v.points, func(a, b point) int {
		return int(min(max(int64(a.size)-int64(b.size), -1), 1))
	})
}

// entries goes through all entries: those of the bundles before the journal,
// then those of the journal.
func (v *verification) entries() error {
	base, n, err := cutHeader(v.view.journal)
	if err != nil {
		v.report.add(0, journalFile, "%v", err)
	}
	v.base = base
	if base.size > 0 && v.view.checkpoint == nil {
		v.report.add(0, checkpointFile, "it is missing")
	}
	v.meet()
	for v.tree.size < base.size {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		file := tilePath(entries, v.tree.size/tileWidth, tileWidth)
		data, err := v.view.dir.read(file)
		if err != nil {
			v.report.add(v.tree.size+1, file, "it cannot be read: %v", plain(err))
			return nil
		}
		if !v.wholeBundle(file, data) {
			return nil
		}
	}
	rest := v.view.journal[n:]
	for len(rest) > 0 {
		entry, next, err := cutFrame(rest)
		if err != nil {
			v.report.add(v.tree.size+1, journalFile, "there is %v", err)
			break
		}
		if entry == nil {
			v.report.Torn = len(rest)
			break
		}
		v.entry(journalFile, entry)
		rest = next
	}
	for _, p := range v.points {
		v.report.add(v.tree.size+1, p.file, "it counts %d entries, and %d are there", p.size, v.tree.size)
	}
	return nil
}

// wholeBundle takes the entries of a bundle that lies before the journal.
func (v *verification) wholeBundle(file string, data []byte) bool {
	for start := v.tree.size; v.tree.size < start+tileWidth; {
		entry, rest, err := cutBundle(data)
		if err != nil {
			v.report.add(v.tree.size+1, file, "%v", err)
			return false
		}
		v.entry(file, entry)
		data = rest
	}
	if len(data) > 0 {
		v.report.add(v.tree.size, file, "it holds more than %d entries", tileWidth)
		return false
	}
	return true
}

// entry takes the next entry into the tree and checks what it says.
func (v *verification) entry(file string, data []byte) {
	seq := v.tree.size + 1
	var e event.Event
	switch err := json.Unmarshal(data, &e); {
	case err != nil:
		v.report.add(seq, file, "the entry cannot be read: %v", err)
	case e.Seq != seq:
		v.report.add(seq, file, "the entry says that it is number %d", e.Seq)
	case e.Time.Before(v.report.Last):
		v.report.add(seq, file, "the entry is of %s, before the one before it", e.Time.Format(time.RFC3339Nano))
	default:
		if v.report.Last = e.Time; seq == 1 {
			v.report.First = e.Time
		}
	}
	v.bundle = append(binary.BigEndian.AppendUint16(v.bundle, uint16(len(data))), data...)
	v.prefix = append(append(v.prefix[:0], 0), data...)
	leaf := leafHash(v.prefix)
	full := v.tree.add(leaf, nil)
	v.report.Entries = v.tree.size
	for _, t := range full {
		v.wholeTile(t)
	}
	if v.tree.size%tileWidth == 0 {
		v.compare(tilePath(entries, seq/tileWidth-1, tileWidth), v.bundle, seq-tileWidth+1, seq)
		v.bundle = v.bundle[:0]
	}
	v.meet()
}

func (v *verification) wholeTile(t tile) {
	under := uint64(1) << (8 * t.level) // entries below one node
	first := t.index*tileWidth*under + 1
	v.compare(tilePath(t.level, t.index, tileWidth), flatten(t.nodes), first, first+tileWidth*under-1)
}

// unpinned is the sequence number for a problem somewhere from first to last: 0
// where an entry in between is known to be bad, which explains it.
func (v *verification) unpinned(first, last uint64) uint64 {
	if bad := v.report.FirstBad; bad >= first && bad <= last {
		return 0
	}
	return first
}

// compare holds a file about the entries from first to last against what they
// make it. It must be there once they are signed, or left out of the journal.
func (v *verification) compare(file string, want []byte, first, last uint64) {
	got, err := v.view.dir.read(file)
	if errors.Is(err, fs.ErrNotExist) && last > max(v.report.Signed, v.base.size) {
		return
	}
	if err != nil {
		v.report.add(first, file, "it cannot be read: %v", plain(err))
		return
	}
	if !bytes.Equal(got, want) {
		v.report.add(v.locate(file, got, want, first, last), file, "it does not agree with the entries")
	}
}

// locate finds the first entry about which a file differs from what it should be.
func (v *verification) locate(file string, got, want []byte, first, last uint64) uint64 {
	if strings.HasPrefix(file, "tile/0/") {
		n := 0
		for n < len(got) && n < len(want) && got[n] == want[n] {
			n++
		}
		return first + uint64(n/len(hash{}))
	}
	if !strings.HasPrefix(file, "tile/entries/") {
		return v.unpinned(first, last)
	}
	for seq := first; ; seq++ {
		a, restA, errA := cutBundle(got)
		b, restB, errB := cutBundle(want)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			return seq
		}
		got, want = restA, restB
	}
}

// meet checks what is known about the tree at its present size.
func (v *verification) meet() {
	if !v.started && v.tree.size == v.base.size {
		v.started = true
		for level := 1; level < max(len(v.tree.edge), len(v.base.edge)); level++ {
			if !slices.Equal(nodes(v.tree, level), nodes(v.base, level)) {
				v.report.add(0, journalFile, "its header does not agree with the entries before it")
				break
			}
		}
	}
	for len(v.points) > 0 && v.points[0].size == v.tree.size {
		p := v.points[0]
		v.points = v.points[1:]
		switch {
		case v.tree.root() != p.root:
			v.report.add(v.unpinned(v.good+1, p.size), p.file, "the root over its %d entries is another one: entries were changed", p.size)
		default:
			if v.good = p.size; p.witness {
				v.report.Witnessed++
			}
		}
		if !p.witness {
			v.signed, v.partial = v.tree.clone(), bytes.Clone(v.bundle)
		}
	}
}

func nodes(t tree, level int) []hash {
	if level < len(t.edge) {
		return t.edge[level]
	}
	return nil
}

// partials checks the unfinished tiles of the checkpoint. They go when the next
// checkpoint comes, so that a missing one counts only if none came meanwhile.
func (v *verification) partials() {
	if v.signed.size == 0 {
		return
	}
	var bad Report
	for _, file := range partials(v.signed.size) {
		got, err := v.view.dir.read(file)
		want, level := v.partial, 0
		if _, err := fmt.Sscanf(file, "tile/%d/", &level); err == nil {
			want = flatten(v.signed.edge[level])
		}
		first := v.signed.size - v.signed.size%(tileWidth<<(8*level)) + 1
		switch {
		case err != nil:
			bad.add(first, file, "it cannot be read: %v", plain(err))
		case !bytes.Equal(got, want):
			v.report.add(v.locate(file, got, want, first, v.signed.size), file, "it does not agree with the entries")
		}
	}
	if now, err := v.view.dir.read(checkpointFile); err == nil && !bytes.Equal(now, v.view.checkpoint) {
		return
	}
	for _, p := range bad.Problems {
		v.report.add(p.Seq, p.File, "%s", p.Text)
	}
}

// leftovers finds the bytes that were cut off.
func (v *verification) leftovers() error {
	list, err := fs.ReadDir(v.view.dir.root.FS(), ".")
	if err != nil {
		return cannotOpen("").Wrap(err)
	}
	for _, file := range list {
		if strings.HasPrefix(file.Name(), cutPrefix) {
			v.report.CutOff = append(v.report.CutOff, file.Name())
		}
	}
	return nil
}

// plain is err without the path that the report names anyway.
func plain(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
