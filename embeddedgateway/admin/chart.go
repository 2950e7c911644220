package admin

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// The size of a chart in its own units: a minute is a bar of barStep. The page
// stretches it to the room there is.
const (
	barStep, barWide = 6, 4
	chartHigh        = 60
)

// chart is what happened in each of the last minutes, as bars.
type chart struct {
	ID, Title string
	Unit      string // what is counted: "registrations"
	Wide      int
	Path      string // what the bars are drawn by
	Total     int
	Top       int // the largest that fits in
	Summary   string
}

// charts draws the three charts of the overview.
func charts(minutes []embeddedgateway.MinuteNumbers) []chart {
	return []chart{
		draw("requests", "Requests", minutes, func(m embeddedgateway.MinuteNumbers) int { return m.Requests }),
		draw("registrations", "Registrations", minutes, func(m embeddedgateway.MinuteNumbers) int { return m.Registered }),
		draw("refusals", "Refusals", minutes, func(m embeddedgateway.MinuteNumbers) int { return m.Refused }),
	}
}

func draw(id, title string, minutes []embeddedgateway.MinuteNumbers, count func(embeddedgateway.MinuteNumbers) int) chart {
	c := chart{ID: id, Title: title, Unit: id, Wide: barStep*len(minutes) - (barStep - barWide)}
	most, at := 0, 0
	for i, m := range minutes {
		n := count(m)
		c.Total += n
		if n > most {
			most, at = n, i
		}
	}
	c.Top = roundUp(most)
	var path strings.Builder
	for i, m := range minutes {
		n := count(m)
		if n <= 0 {
			continue
		}
		// One is seen beside a thousand.
		high := max(float64(n)/float64(c.Top)*chartHigh, 1.5)
		fmt.Fprintf(&path, "M%d %dv-%sh%dv%sz", i*barStep, chartHigh, short(high), barWide, short(high))
	}
	c.Path = path.String()
	c.Summary = fmt.Sprintf("No %s in the last hour.", id)
	if most > 0 {
		c.Summary = fmt.Sprintf("%d %s in the last hour, at most %d in a minute, at %s UTC.",
			c.Total, id, most, minutes[at].At.UTC().Format("15:04"))
	}
	return c
}

// short writes a length with one digit behind the point at most.
func short(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
}

// roundUp is the next number that people like to read at the top of a chart.
func roundUp(n int) int {
	for scale := 1; ; scale *= 10 {
		for _, step := range []int{1, 2, 4, 5, 8} {
			if n <= step*scale && step*scale >= 4 {
				return step * scale
			}
		}
	}
}
