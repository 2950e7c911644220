package eip191_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/gateway/eip191"
)

// The test vectors of the Web3 Secret Storage Definition, and one with an
// address, as wallets write it.
const (
	vectorKey  = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
	vectorPass = "testpassword"

	vectorScrypt = `{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"83dbcc02d8ccb40e466191a123791e0e"},
		"ciphertext":"d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c","kdf":"scrypt",
		"kdfparams":{"dklen":32,"n":262144,"r":1,"p":8,"salt":"ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"},
		"mac":"2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"},
		"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}`

	vectorPBKDF2 = `{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
		"ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2",
		"kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
		"mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},
		"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}`

	vector31Bytes = `{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"e0c41130a323adc1446fc82f724bca2f"},
		"ciphertext":"9517cd5bdbe69076f9bf5057248c6c050141e970efa36ce53692d5d59a3984","kdf":"scrypt",
		"kdfparams":{"dklen":32,"n":2,"r":8,"p":1,"salt":"711f816911c92d649fb4c84b047915679933555030b3552c1212609b38208c63"},
		"mac":"d5e116151c6aa71470e67a7d42c9620c75c4d23229847dcc127794f0732b0db5"},
		"id":"fecfc4ce-e956-48fd-953b-30f8b52ed66c","version":3}`

	vectorLight = `{"address":"45dea0fb0bba44f4fcf290bba71fd57d7117cbb8","crypto":{"cipher":"aes-128-ctr","ciphertext":"b87781948a1befd247bff51ef4063f716cf6c2d3481163e9a8f42e1f9bb74145","cipherparams":{"iv":"dc4926b48a105133d2f16b96833abf1e"},"kdf":"scrypt","kdfparams":{"dklen":32,"n":2,"p":1,"r":8,"salt":"004244bbdc51cadda545b1cfa43cff9ed2ae88e08c61f1479dbb45410722f8f0"},"mac":"39990c1684557447940d4c69e06b1b82b2aceacb43f284df65c956daf3046b85"},"id":"ce541d8d-c79b-40f8-9f8c-20f59616faba","version":3}`
)

func TestKeystoresOpen(t *testing.T) {
	for name, tt := range map[string]struct{ file, pass, key string }{
		"scrypt":        {vectorScrypt, vectorPass, vectorKey},
		"pbkdf2":        {vectorPBKDF2, vectorPass, vectorKey},
		"a short key":   {vector31Bytes, "foo", "00fa7b3db73dc7dfdf8c5fbdb796d741e4488628c41fc4febd9160a866ba0f35"},
		"its own words": {strings.Replace(vectorScrypt, `"crypto"`, `"Crypto"`, 1), vectorPass, vectorKey},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := eip191.OpenKeystore([]byte(tt.file), tt.pass)
			if err != nil {
				t.Fatal(err)
			}
			if w.Key() != tt.key {
				t.Errorf("got the wallet %s, want that of %s", w, tt.key)
			}
		})
	}
	w, err := eip191.OpenKeystore([]byte(vectorLight), "")
	if err != nil || !strings.EqualFold(w.Address(), "0x45dea0fb0bba44f4fcf290bba71fd57d7117cbb8") {
		t.Errorf("with an address: got %v, %v", w, err)
	}
}

func TestKeystoresThatDoNotOpen(t *testing.T) {
	change := func(old, fresh string) string { return strings.Replace(vectorLight, old, fresh, 1) }
	for name, tt := range map[string]struct {
		file, pass string
		want       error
	}{
		"a wrong passphrase":  {vectorLight, "guess", eip191.ErrPassphrase},
		"a changed text":      {change("b87781", "b87782"), "", eip191.ErrPassphrase},
		"another address":     {change("45dea0", "45dea1"), "", eip191.ErrKeystore},
		"version 1":           {change(`"version":3`, `"version":1`), "", eip191.ErrKeystore},
		"a version as text":   {change(`"version":3`, `"version":"3"`), "", eip191.ErrKeystore},
		"another cipher":      {change("aes-128-ctr", "aes-128-cbc"), "", eip191.ErrKeystore},
		"another kdf":         {change(`"scrypt"`, `"argon2"`), "", eip191.ErrKeystore},
		"another prf":         {strings.Replace(vectorPBKDF2, "sha256", "sha512", 1), vectorPass, eip191.ErrKeystore},
		"no rounds":           {strings.Replace(vectorPBKDF2, "262144", "0", 1), vectorPass, eip191.ErrKeystore},
		"rounds without end":  {strings.Replace(vectorPBKDF2, "262144", "2000000000", 1), vectorPass, eip191.ErrKeystore},
		"a short iv":          {change("dc4926b4", ""), "", eip191.ErrKeystore},
		"no hex":              {change("dc4926b4", "zz4926b4"), "", eip191.ErrKeystore},
		"a long text":         {change("b87781", strings.Repeat("b8", 100)), "", eip191.ErrPassphrase},
		"a short derived key": {change(`"dklen":32`, `"dklen":16`), "", eip191.ErrKeystore},
		"no n":                {change(`"n":2`, `"n":0`), "", eip191.ErrKeystore},
		"n no power of two":   {change(`"n":2`, `"n":3`), "", eip191.ErrKeystore},
		"all the memory":      {change(`"n":2`, `"n":4194304`), "", eip191.ErrKeystore},
		"an overflow":         {change(`"r":8`, `"r":9223372036854775807`), "", eip191.ErrKeystore},
		"all the time":        {change(`"p":1`, `"p":9000000`), "", eip191.ErrKeystore},
		"no JSON":             {vectorKey, "", eip191.ErrKeystore},
		"an empty object":     {"{}", "", eip191.ErrKeystore},
		"too large":           {vectorLight + strings.Repeat(" ", eip191.MaxFile), "", eip191.ErrKeystore},
	} {
		t.Run(name, func(t *testing.T) {
			if w, err := eip191.OpenKeystore([]byte(tt.file), tt.pass); !errors.Is(err, tt.want) {
				t.Errorf("got %v, %v, want %v", w, err, tt.want)
			}
		})
	}
}

func TestFilesAreToldApart(t *testing.T) {
	for file, want := range map[string]bool{"\n " + vectorLight: true, vectorKey: false, "": false} {
		if got := eip191.IsKeystore([]byte(file)); got != want {
			t.Errorf("%.20q: got %v, want %v", file, got, want)
		}
	}
}

func FuzzKeystore(f *testing.F) {
	f.Add([]byte(vectorLight), "")
	f.Add([]byte(vector31Bytes), "foo")
	f.Fuzz(func(t *testing.T, file []byte, passphrase string) {
		w, err := eip191.OpenKeystore(file, passphrase)
		if err == nil && w.Key() == "" {
			t.Error("opened to nothing")
		}
	})
}
