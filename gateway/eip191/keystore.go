package eip191

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ethereum/go-ethereum/crypto"
	"golang.org/x/crypto/scrypt"
)

// The errors of a keystore file.
var (
	ErrKeystore   = errors.New("not a keystore file of version 3")
	ErrPassphrase = errors.New("the passphrase does not open the keystore file")
)

// MaxFile is more than any file of a wallet has in bytes.
const MaxFile = 64 << 10

const (
	// maxScrypt bounds what a file may make us work, in blocks of 128 bytes:
	// 1 GiB. The usual file takes 256 MiB.
	maxScrypt = 8 << 20
	maxRounds = 10 << 20
	keyLen    = 32
)

// keystore is the file, as the Web3 Secret Storage Definition says it.
type keystore struct {
	Address string `json:"address"`
	Version int    `json:"version"`
	Crypto  struct {
		Cipher       string `json:"cipher"`
		CipherText   string `json:"ciphertext"`
		CipherParams struct {
			IV string `json:"iv"`
		} `json:"cipherparams"`
		KDF       string    `json:"kdf"`
		KDFParams kdfParams `json:"kdfparams"`
		MAC       string    `json:"mac"`
	} `json:"crypto"`
}

type kdfParams struct {
	DKLen int    `json:"dklen"`
	Salt  string `json:"salt"`
	N     int    `json:"n"`   // scrypt
	R     int    `json:"r"`   // scrypt
	P     int    `json:"p"`   // scrypt
	C     int    `json:"c"`   // pbkdf2
	PRF   string `json:"prf"` // pbkdf2
}

// IsKeystore reports whether a file is a keystore rather than a bare key.
func IsKeystore(file []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(file), []byte("{"))
}

// OpenKeystore returns the wallet of a keystore file of version 3.
func OpenKeystore(file []byte, passphrase string) (Wallet, error) {
	var k keystore
	if len(file) > MaxFile || json.Unmarshal(file, &k) != nil {
		return Wallet{}, ErrKeystore
	}
	if k.Version != 3 || k.Crypto.Cipher != "aes-128-ctr" {
		return Wallet{}, ErrKeystore
	}
	iv, err1 := hex.DecodeString(k.Crypto.CipherParams.IV)
	text, err2 := hex.DecodeString(k.Crypto.CipherText)
	mac, err3 := hex.DecodeString(k.Crypto.MAC)
	if errors.Join(err1, err2, err3) != nil || len(iv) != aes.BlockSize {
		return Wallet{}, ErrKeystore
	}
	derived, err := derive(k.Crypto.KDF, k.Crypto.KDFParams, passphrase)
	if err != nil {
		return Wallet{}, err
	}
	if subtle.ConstantTimeCompare(crypto.Keccak256(derived[16:32], text), mac) != 1 {
		return Wallet{}, ErrPassphrase
	}
	block, err := aes.NewCipher(derived[:16])
	if err != nil {
		return Wallet{}, ErrKeystore
	}
	if len(text) > keyLen {
		return Wallet{}, ErrKeystore
	}
	// Some old wallets wrote keys without their leading zeros.
	raw := make([]byte, keyLen)
	cipher.NewCTR(block, iv).XORKeyStream(raw[keyLen-len(text):], text)
	w, err := fromBytes(raw)
	if err != nil {
		return Wallet{}, ErrKeystore
	}
	if said := strings.TrimPrefix(strings.ToLower(k.Address), "0x"); said != "" && "0x"+said != strings.ToLower(w.Address()) {
		return Wallet{}, fmt.Errorf("%w: its key is of another address than it says", ErrKeystore)
	}
	return w, nil
}

// derive makes the file's key of the passphrase.
func derive(kdf string, p kdfParams, passphrase string) ([]byte, error) {
	salt, err := hex.DecodeString(p.Salt)
	if err != nil || p.DKLen != keyLen {
		return nil, ErrKeystore
	}
	var key []byte
	switch {
	case kdf == "scrypt" && affordable(p):
		key, err = scrypt.Key([]byte(passphrase), salt, p.N, p.R, p.P, p.DKLen)
	case kdf == "pbkdf2" && p.PRF == "hmac-sha256" && p.C > 0 && p.C <= maxRounds:
		key, err = pbkdf2.Key(sha256.New, passphrase, salt, p.C, p.DKLen)
	default:
		return nil, ErrKeystore
	}
	if err != nil {
		return nil, ErrKeystore
	}
	return key, nil
}

// affordable reports whether scrypt with these parameters ends in a sensible
// time and memory.
func affordable(p kdfParams) bool {
	return p.N > 1 && p.R > 0 && p.P > 0 && p.N <= maxScrypt && p.R <= maxScrypt/p.N && p.P <= 4*maxScrypt/p.N/p.R
}
