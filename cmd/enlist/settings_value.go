package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const day = 24 * time.Hour

// put reads a value, as it stands in a flag, a variable or the file, into where a
// setting keeps it. What the error says goes behind the name of the setting. A
// list has as many values as it has; anything else has one.
func put(to any, values []string) error {
	if list, ok := to.(*[]string); ok {
		*list = values
		return nil
	}
	if list, ok := to.(*[]netip.Prefix); ok {
		return putNetworks(list, values)
	}
	value := values[0]
	var err error
	switch to := to.(type) {
	case *string:
		*to = value
	case *bool:
		*to, err = strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("want true or false, got %q", value)
		}
	case *int:
		*to, err = strconv.Atoi(strings.ReplaceAll(value, "_", "")) // as TOML may have it
		if err != nil || *to < 0 {
			return fmt.Errorf("want a whole number such as 256, got %q", value)
		}
	case *time.Duration:
		*to, err = parseSpan(value)
	case *byteSize:
		*to, err = parseSize(value)
	case *embeddedgateway.Rate:
		*to, err = parseRate(value)
	case **url.URL:
		*to, err = parseBaseURL(value)
	default:
		return fmt.Errorf("this program cannot read a %T", to)
	}
	return err
}

func putNetworks(to *[]netip.Prefix, values []string) error {
	*to = nil
	for _, value := range values {
		if addr, err := netip.ParseAddr(value); err == nil {
			addr = addr.Unmap()
			*to = append(*to, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(value)
		if err != nil {
			return fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", value)
		}
		if prefix.Addr().Is4In6() { // peers are compared without this dress
			return fmt.Errorf("%q is a network of IPv4 in the dress of IPv6: write it as one of IPv4, such as 10.0.0.0/8", value)
		}
		*to = append(*to, prefix)
	}
	return nil
}

// show is a value as the file would have it, without quotation marks.
func show(to any) string {
	switch to := to.(type) {
	case *string:
		return *to
	case *[]string:
		return strings.Join(*to, ", ")
	case *[]netip.Prefix:
		var list []string
		for _, p := range *to {
			list = append(list, p.String())
		}
		return strings.Join(list, ", ")
	case *bool:
		return strconv.FormatBool(*to)
	case *int:
		return strconv.Itoa(*to)
	case *time.Duration:
		return showSpan(*to)
	case *byteSize:
		return showSize(*to)
	case *embeddedgateway.Rate:
		if to.N == 0 {
			return ""
		}
		return strconv.Itoa(to.N) + "/" + showSpan(to.Per)
	case **url.URL:
		if *to == nil {
			return ""
		}
		return (*to).String()
	}
	return ""
}

// parseSpan reads a time such as 30s, 1h30m or 90d.
func parseSpan(text string) (time.Duration, error) {
	wrong := fmt.Errorf("want a time such as 30s, 10m, 12h or 90d, got %q", text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n > math.MaxInt64/int(day) || n < math.MinInt64/int(day) {
			return 0, wrong
		}
		return time.Duration(n) * day, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, wrong
	}
	return d, nil
}

func showSpan(d time.Duration) string {
	switch {
	case d != 0 && d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	case d != 0 && d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d != 0 && d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	}
	return d.String()
}

// parseSize reads a number of bytes such as 10MiB.
func parseSize(text string) (byteSize, error) {
	n, err := humanize.ParseBytes(text)
	if err != nil || n == 0 || n > math.MaxInt64 || strings.HasPrefix(text, "-") {
		return 0, fmt.Errorf("want a size such as 512KiB or 10MiB, got %q", text)
	}
	return byteSize(n), nil
}

func showSize(n byteSize) string {
	for unit, name := range map[byteSize]string{1 << 30: "GiB", 1 << 20: "MiB", 1 << 10: "KiB"} {
		if n%unit == 0 && n/unit < 1024 {
			return strconv.FormatInt(int64(n/unit), 10) + name
		}
	}
	return strconv.FormatInt(int64(n), 10) + "B"
}

// parseRate reads how often something may happen, such as 1000/1h.
func parseRate(text string) (embeddedgateway.Rate, error) {
	wrong := fmt.Errorf("want how often in how long, such as 1000/1h or 100/1m, got %q", text)
	count, span, ok := strings.Cut(text, "/")
	if !ok {
		return embeddedgateway.Rate{}, wrong
	}
	n, err := strconv.Atoi(count)
	per, wrongSpan := parseSpan(span)
	if err != nil || wrongSpan != nil || n < 1 {
		return embeddedgateway.Rate{}, wrong
	}
	if per < time.Second || per > day || per%time.Second != 0 {
		return embeddedgateway.Rate{}, fmt.Errorf("want whole seconds behind the slash, from 1s to 24h, got %q", text)
	}
	return embeddedgateway.Rate{N: n, Per: per}, nil
}

// errBaseURL does not say what there was: it may hold a password.
var errBaseURL = errors.New("want a URL such as https://api.example.com, without a user, a query and a fragment")

func parseBaseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || strings.ContainsAny(text, "?#") {
		return nil, errBaseURL
	}
	return u, nil
}

func checkBaseURL(text string) error {
	_, err := parseBaseURL(text)
	return err
}

func checkAddress(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.DefaultResolver.LookupPort(context.Background(), "tcp", port) // asks nobody
	}
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on: want HOST:PORT, such as %s", addr, defaultListen)
	}
	return nil
}

// adminOff is the address of an operator's page that is not there.
const adminOff = "off"

// adminAddress completes an address for the operator's page: nobody opens it to
// the world by leaving out a host.
func adminAddress(addr string) (string, error) {
	if addr == adminOff {
		return addr, nil
	}
	full := addr
	if port := strings.TrimPrefix(addr, ":"); !strings.Contains(port, ":") {
		if _, err := strconv.ParseUint(port, 10, 16); err == nil {
			full = net.JoinHostPort("127.0.0.1", port)
		}
	}
	if strings.HasPrefix(full, ":") || checkAddress(full) != nil {
		return addr, fmt.Errorf("%q is not an address to listen on: want HOST:PORT or a port, such as %s, or %s", addr, defaultAdminListen, adminOff)
	}
	return full, nil
}

func checkProtocols(names []string) error {
	var known []string
	for _, protocol := range wire.Protocols() {
		known = append(known, protocol.Name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("unknown protocol %q: known are %s", name, strings.Join(known, ", "))
		}
	}
	if len(names) == 0 {
		return errors.New("name at least one, or leave it out for all: " + strings.Join(known, ", "))
	}
	return nil
}

func oneOf(value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	last := len(words) - 1
	return fmt.Errorf("want %s or %s, got %q", strings.Join(words[:last], ", "), words[last], value)
}

func atLeast(d, least time.Duration) error {
	if d < least {
		return fmt.Errorf("want at least %s, got %s", showSpan(least), showSpan(d))
	}
	return nil
}
