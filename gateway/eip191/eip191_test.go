package eip191_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/gateway/eip191"
)

// The example of web3.eth.accounts.sign in web3.js's documentation.
const (
	docKey       = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
	docAddress   = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
	docMessage   = "Some data"
	docHash      = "1da44b586eb0729ff70a73c326926f6ed5a25f5b056e7f47fbc6e58d86871655"
	docSignature = "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c"
)

func wallet(t testing.TB, key string) eip191.Wallet {
	t.Helper()
	w, err := eip191.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestSignsAsTheDocumentationShows(t *testing.T) {
	w := wallet(t, docKey)
	if got := w.Address(); got != docAddress {
		t.Errorf("got the address %s, want %s", got, docAddress)
	}
	if hash := eip191.Hash(docMessage); hex.EncodeToString(hash[:]) != docHash {
		t.Errorf("got the hash %x, want %s", hash, docHash)
	}
	for range 2 { // it is deterministic
		if got, err := w.Sign(docMessage); err != nil || got != docSignature {
			t.Errorf("got %s (%v), want %s", got, err, docSignature)
		}
	}
	s, err := eip191.ParseSignature(docSignature)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Recover(docMessage); err != nil || got != strings.ToLower(docAddress) {
		t.Errorf("recovered %s (%v), want %s", got, err, docAddress)
	}
	if got, _ := s.Recover(docMessage + "."); got == strings.ToLower(docAddress) {
		t.Error("recovered the signer from another message")
	}
}

// malleable returns the other signature of the same message by the same key:
// s from the order down, and the other v.
func malleable(signature string) string {
	raw, _ := hex.DecodeString(signature[2:])
	n, _ := new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
	n.Sub(n, new(big.Int).SetBytes(raw[32:64])).FillBytes(raw[32:64])
	raw[64] = 27 + 28 - raw[64]
	return "0x" + hex.EncodeToString(raw)
}

func TestSignaturesAreTakenInOneFormOnly(t *testing.T) {
	withV := func(v string) string { return docSignature[:130] + v }
	for name, tt := range map[string]struct {
		text string
		ok   bool
	}{
		"as it is":           {docSignature, true},
		"v 1":                {withV("01"), true},
		"v 28":               {withV("1c"), true},
		"upper case":         {"0x" + strings.ToUpper(docSignature[2:]), true},
		"v 2":                {withV("02"), false},
		"v 3":                {withV("03"), false},
		"v 26":               {withV("1a"), false},
		"v 29":               {withV("1d"), false},
		"v of a chain":       {withV("25"), false},
		"the high s":         {malleable(docSignature), false},
		"64 bytes":           {docSignature[:130], false},
		"66 bytes":           {docSignature + "00", false},
		"odd digits":         {docSignature[:131], false},
		"no 0x":              {docSignature[2:], false},
		"0X":                 {"0X" + docSignature[2:], false},
		"a space":            {docSignature + " ", false},
		"no hex":             {docSignature[:130] + "zz", false},
		"nothing":            {"", false},
		"zeros":              {"0x" + strings.Repeat("0", 130), false},
		"r over the order":   {"0x" + strings.Repeat("f", 64) + docSignature[66:], false},
		"s is 0":             {docSignature[:66] + strings.Repeat("0", 64) + "1c", false},
		"s is half and one":  {docSignature[:66] + "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1" + "1c", false},
		"s is just the half": {docSignature[:66] + "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0" + "1c", true},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := eip191.ParseSignature(tt.text); (err == nil) != tt.ok || err != nil && !errors.Is(err, eip191.ErrSignature) {
				t.Errorf("got %v, want ok %v", err, tt.ok)
			}
		})
	}
	a, _ := eip191.ParseSignature(docSignature)
	b, _ := eip191.ParseSignature("0x" + strings.ToUpper(docSignature[2:130]) + "01")
	if a != b {
		t.Error("two spellings of one signature differ")
	}
}

// The addresses of EIP-55's own list of tests.
func TestAddresses(t *testing.T) {
	const mixed = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
	for name, tt := range map[string]struct {
		text string
		ok   bool
	}{
		"checksum":           {mixed, true},
		"another checksum":   {"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359", true},
		"lower case":         {strings.ToLower(mixed), true},
		"upper case":         {"0x" + strings.ToUpper(mixed[2:]), true},
		"a checksum that is": {"0x52908400098527886E0F7030069857D2E4169EE7", true},
		"digits only":        {"0x" + strings.Repeat("1", 40), true},
		"a wrong checksum":   {"0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", false},
		"upper case 0X":      {"0X" + strings.ToUpper(mixed[2:]), false},
		"no 0x":              {mixed[2:], false},
		"short":              {mixed[:40], false},
		"long":               {mixed + "00", false},
		"no hex":             {mixed[:40] + "zz", false},
		"a newline":          {mixed + "\n", false},
		"nothing":            {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := eip191.ParseAddress(tt.text)
			if (err == nil) != tt.ok || tt.ok && got != strings.ToLower(tt.text) {
				t.Errorf("got %q, %v, want ok %v", got, err, tt.ok)
			}
		})
	}
}

func TestWalletsPrintAsTheirAddress(t *testing.T) {
	w := wallet(t, docKey)
	inside := struct{ wallet eip191.Wallet }{w}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		if got := fmt.Sprintf(verb, w); got != docAddress {
			t.Errorf("%s: got %s", verb, got)
		}
		if got := fmt.Sprintf(verb, inside); strings.Contains(got, docKey) {
			t.Errorf("%s in a struct: got %s", verb, got)
		}
	}
	if text, err := json.Marshal(w); err != nil || string(text) != `"`+docAddress+`"` {
		t.Errorf("got %s, %v", text, err)
	}
	if got := fmt.Sprint(eip191.Wallet{}); got != "[no wallet]" {
		t.Errorf("got %s", got)
	}
}

func TestKeys(t *testing.T) {
	const order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
	for name, tt := range map[string]struct {
		text string
		ok   bool
	}{
		"hex":        {docKey, true},
		"with 0x":    {"0x" + docKey + "\r\n", true},
		"upper case": {strings.ToUpper(docKey), true},
		"short":      {docKey[:62], false},
		"long":       {docKey + "00", false},
		"no hex":     {docKey[:62] + "zz", false},
		"zero":       {strings.Repeat("0", 64), false},
		"the order":  {order, false},
		"nothing":    {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := eip191.ParseKey(tt.text)
			if (err == nil) != tt.ok {
				t.Fatalf("got %v, want ok %v", err, tt.ok)
			}
			if err == nil && (w.Address() != docAddress || w.Key() != docKey) {
				t.Errorf("got the wallet %s", w)
			}
			if err != nil && tt.text != "" && strings.Contains(err.Error(), tt.text) {
				t.Errorf("the error %q repeats the key", err)
			}
		})
	}
	a, err := eip191.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if again := wallet(t, a.Key()); again.Address() != a.Address() {
		t.Errorf("got %s back, want %s", again, a)
	}
	if _, err := eip191.New(strings.NewReader("short")); err == nil {
		t.Error("made a wallet of five bytes")
	}
	over, _ := hex.DecodeString(order)
	right, _ := hex.DecodeString(docKey)
	if w, err := eip191.New(bytes.NewReader(append(over, right...))); err != nil || w.Address() != docAddress {
		t.Errorf("got %v, %v, want the second draw", w, err)
	}
}

func FuzzSignature(f *testing.F) {
	f.Add(docSignature, docMessage)
	f.Add(malleable(docSignature), docMessage)
	f.Fuzz(func(t *testing.T, text, message string) {
		s, err := eip191.ParseSignature(text)
		if err != nil {
			return
		}
		address, err := s.Recover(message)
		if err != nil {
			return
		}
		if _, err := eip191.ParseAddress(address); err != nil {
			t.Errorf("recovered %q, which is no address", address)
		}
		if _, err := eip191.ParseSignature(malleable(text)); err == nil {
			t.Errorf("both %s and its twin are taken", text)
		}
	})
}
