// Package eip191 is wallet signatures: the messages that an Ethereum wallet
// signs with personal_sign (EIP-191, version 0x45), who signed one, and the
// files that wallets are kept in. It knows no protocol; both halves use it.
//
// It is strict where wallets and libraries are not: a signature is 65 bytes
// with v 0, 1, 27 or 28 and s in the lower half of the curve's order, so that
// one message has one signature by one key, and an address in mixed case has
// its EIP-55 checksum.
package eip191

import (
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// The errors of what is not as the package says. None repeats what was given.
var (
	ErrAddress   = errors.New("not an Ethereum address: want 0x and 40 hex digits, in one case or with the EIP-55 checksum")
	ErrSignature = errors.New("not a signature: want 65 bytes, v 0, 1, 27 or 28, and the low s")
	ErrKey       = errors.New("not a private key: want 32 bytes as 64 hex digits")
)

// SignatureSize is the size of a signature in bytes: r, s and v.
const SignatureSize = 65

// Hash returns what personal_sign signs of a message.
func Hash(message string) [32]byte {
	return crypto.Keccak256Hash([]byte("\x19Ethereum Signed Message:\n"), []byte(strconv.Itoa(len(message))), []byte(message))
}

// ParseAddress returns an address in lower case. It takes an address that is
// all lower or all upper case behind its 0x, or that has the EIP-55 checksum.
func ParseAddress(text string) (lower string, err error) {
	digits, ok := strings.CutPrefix(text, "0x")
	if _, err := hex.DecodeString(digits); !ok || err != nil || len(digits) != 2*common.AddressLength {
		return "", ErrAddress
	}
	lower = strings.ToLower(digits)
	if digits != lower && digits != strings.ToUpper(digits) && text != common.HexToAddress(text).Hex() {
		return "", ErrAddress
	}
	return "0x" + lower, nil
}

// Signature is a signature in its one canonical form: r, s, and v as 0 or 1.
// Two texts of one signature have the same Signature.
type Signature [SignatureSize]byte

// ParseSignature reads a signature of 0x and 130 hex digits, in either case.
// The 64 bytes of EIP-2098 are not one.
func ParseSignature(text string) (Signature, error) {
	var s Signature
	digits, ok := strings.CutPrefix(text, "0x")
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != SignatureSize {
		return s, ErrSignature
	}
	copy(s[:], raw)
	if v := s[64]; v == 27 || v == 28 {
		s[64] = v - 27
	}
	r, low := new(big.Int).SetBytes(s[:32]), new(big.Int).SetBytes(s[32:64])
	// homestead: s in the lower half. Recovery alone takes the upper one too.
	if !crypto.ValidateSignatureValues(s[64], r, low, true) {
		return Signature{}, ErrSignature
	}
	return s, nil
}

// Recover returns the address, in lower case, of the wallet that signed a
// message.
func (s Signature) Recover(message string) (string, error) {
	hash := Hash(message)
	public, err := crypto.SigToPub(hash[:], s[:])
	if err != nil {
		return "", ErrSignature
	}
	return strings.ToLower(crypto.PubkeyToAddress(*public).Hex()), nil
}

// Wallet is a private key. It prints as its address, whatever the verb.
type Wallet struct {
	_   [0]func() // not comparable
	key *ecdsa.PrivateKey
}

// New makes a wallet of 256 bits of rand.
func New(rand io.Reader) (Wallet, error) {
	for {
		var raw [32]byte
		if _, err := io.ReadFull(rand, raw[:]); err != nil {
			return Wallet{}, fmt.Errorf("read random bytes: %w", err)
		}
		if key, err := crypto.ToECDSA(raw[:]); err == nil { // else it is 0 or over the order, in 2^128 tries
			return Wallet{key: key}, nil
		}
	}
}

// ParseKey reads a private key: 64 hex digits, with or without 0x before and
// white space around them.
func ParseKey(text string) (Wallet, error) {
	digits := strings.TrimSpace(text)
	digits = strings.TrimPrefix(digits, "0x")
	raw, err := hex.DecodeString(digits)
	if err != nil {
		return Wallet{}, ErrKey // err may hold a digit
	}
	return fromBytes(raw)
}

func fromBytes(raw []byte) (Wallet, error) {
	key, err := crypto.ToECDSA(raw)
	if err != nil {
		return Wallet{}, ErrKey
	}
	return Wallet{key: key}, nil
}

// Address returns the address with its EIP-55 checksum.
func (w Wallet) Address() string { return crypto.PubkeyToAddress(w.key.PublicKey).Hex() }

// Key returns the private key as 64 hex digits. It is for a credential store
// and nothing else.
func (w Wallet) Key() string { return hex.EncodeToString(crypto.FromECDSA(w.key)) }

// Sign signs a message as personal_sign does: 0x, r, s, and v as 27 or 28.
// The same message has the same signature.
func (w Wallet) Sign(message string) (string, error) {
	hash := Hash(message)
	sig, err := crypto.Sign(hash[:], w.key)
	if err != nil {
		return "", errors.New("the message could not be signed")
	}
	sig[64] += 27
	return "0x" + hex.EncodeToString(sig), nil
}

// Format implements [fmt.Formatter], for every verb.
func (w Wallet) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, w.String()) }

// MarshalText implements [encoding.TextMarshaler].
func (w Wallet) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// String implements [fmt.Stringer].
func (w Wallet) String() string {
	if w.key == nil {
		return "[no wallet]"
	}
	return w.Address()
}
