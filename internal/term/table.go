package term

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Table writes rows with aligned columns and two spaces between them. A nil
// header is left out. Cells are shown by Safe; the last column is not padded.
func (s *Streams) Table(w io.Writer, header []string, rows [][]string) error {
	all := rows
	if header != nil {
		all = append([][]string{header}, rows...)
	}
	var widths []int
	for _, row := range all {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(Safe(cell)))
		}
	}
	for n, row := range all {
		var b strings.Builder
		for i, cell := range row {
			cell = Safe(cell)
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		line := strings.TrimRight(b.String(), " ")
		if header != nil && n == 0 {
			line = s.Paint(Dim, line)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
