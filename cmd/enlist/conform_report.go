package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clipperhouse/displaywidth"

	"github.com/enlist-mcp/enlist/gateway/conform"
)

// conformity prints a report: the checks in groups, and what came of them all.
func (s *screen) conformity(r conform.Report) error {
	fmt.Fprintf(s.out, "%s\n", s.paint(styleTitle, plain(r.Protocol+" at "+r.Target)))
	width := 0
	for _, result := range r.Results {
		width = max(width, displaywidth.String(result.ID))
	}
	for _, group := range groups(r.Results) {
		fmt.Fprintf(s.out, "\n%s\n", s.paint(styleTitle, groupOf(group[0])))
		for _, result := range group {
			if err := s.graded(result, width); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(s.out, "\n%s\n", s.paint(verdictStyle(r), verdict(r)))
	if err := s.ungraded(r); err != nil {
		return err
	}
	if len(r.Left) > 0 {
		fmt.Fprintln(s.out, "\nstays at the service")
		for _, left := range r.Left {
			if err := s.hang("  ", 2, field{text: plain(left)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// ungraded prints what was not graded, by the reason.
func (s *screen) ungraded(r conform.Report) error {
	var reasons []string
	ids := map[string][]string{}
	for _, result := range r.Results {
		if result.Outcome != conform.Skip {
			continue
		}
		if ids[result.Reason] == nil {
			reasons = append(reasons, result.Reason)
		}
		ids[result.Reason] = append(ids[result.Reason], result.ID)
	}
	if len(reasons) > 0 {
		fmt.Fprintln(s.out, "\nnot graded")
	}
	for _, reason := range reasons {
		if err := s.hang("  ", 4, field{text: plain(reason + ": " + strings.Join(ids[reason], ", "))}); err != nil {
			return err
		}
	}
	return nil
}

// groupOf is what a check is about: the first part of its id.
func groupOf(r conform.Result) string {
	name, _, _ := strings.Cut(r.ID, ".")
	return name
}

// groups puts what is about the same together, in the order of the first of each.
func groups(results []conform.Result) [][]conform.Result {
	var list [][]conform.Result
	for _, r := range results {
		i := slices.IndexFunc(list, func(g []conform.Result) bool { return groupOf(g[0]) == groupOf(r) })
		if i < 0 {
			list = append(list, []conform.Result{r})
			continue
		}
		list[i] = append(list[i], r)
	}
	return list
}

// graded prints a check and what came of it; of one that failed, who says so and
// what was asked and answered.
func (s *screen) graded(r conform.Result, width int) error {
	outcome, sign := field{string(r.Outcome), styleGood}, "✓"
	switch {
	case r.Outcome == conform.Skip:
		outcome.look, sign = styleQuiet, "·"
	case r.Outcome == conform.Fail && r.Severity == conform.Must:
		outcome.look, sign = styleBad, "✗"
	case r.Outcome == conform.Fail:
		outcome.look, sign = styleWarning, "!"
	}
	const outcomes = len("pass")
	word := s.signed(sign, outcome).text
	begin := "  " + s.paint(outcome.look, word) + columnGap + r.ID + strings.Repeat(" ", width-displaywidth.String(r.ID)) + columnGap
	columns := 2 + displaywidth.String(s.signed(sign, field{}).text) + outcomes + len(columnGap) + width + len(columnGap)
	text := r.Expect
	if r.Outcome == conform.Skip {
		text += ": " + r.Reason
	}
	if err := s.hang(begin, columns, field{text: plain(text)}); err != nil || r.Outcome != conform.Fail {
		return err
	}
	indent := strings.Repeat(" ", 2+outcomes+len(columnGap))
	why := fmt.Sprintf("%s (%s): %s", r.Severity, r.Source, r.Reason)
	if err := s.hang(indent, len(indent), field{plain(why), outcome.look}); err != nil {
		return err
	}
	for _, e := range r.Evidence {
		said := fmt.Sprintf("%s → %d %s", e.Request, e.Status, e.Answer)
		if err := s.hang(indent, len(indent), field{cell(said), styleQuiet}); err != nil {
			return err
		}
	}
	return nil
}

// verdict is a report in one sentence.
func verdict(r conform.Report) string {
	passed, failed := r.Count(conform.Must, conform.Pass), r.Count(conform.Must, conform.Fail)
	should, not := r.Count(conform.Should, conform.Pass), r.Count(conform.Should, conform.Fail)
	skipped := r.Count(conform.Must, conform.Skip) + r.Count(conform.Should, conform.Skip)
	text := fmt.Sprintf("must: %d passed, %d failed; should: %d passed, %d failed; not graded: %d; %s",
		passed, failed, should, not, skipped, counted(r.Requests, "request"))
	if !r.Graded() {
		return "no agent could be registered, so the service was not graded. " + text
	}
	return text
}

func verdictStyle(r conform.Report) style {
	if r.OK() {
		return styleGood
	}
	return styleBad
}
