package gateway_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

const (
	shownLimit = 256 << 10
	fileLimit  = 32 << 20
)

// homely returns a client that may write files, and an agent of it.
func homely(t *testing.T, s *service, change ...func(*setup)) (*fixture, credstore.Key) {
	t.Helper()
	set := setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, home: filepath.Join(t.TempDir(), "home")}
	set.timeout, set.deadline = time.Minute, time.Minute // a busy machine is no failure
	for _, c := range change {
		c(&set)
	}
	f := newFixture(t, set)
	f.home = set.home
	return f, f.register(t, "my-agent").Key
}

// kept returns the names of what is in the folder of answers.
func (f *fixture) kept(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(f.home, "answers"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// content returns what is in a file of an answer, and checks how it lies there.
func (f *fixture) content(t *testing.T, file *gateway.File) string {
	t.Helper()
	if file == nil {
		t.Fatal("got no file, want one")
	}
	if dir := filepath.Join(f.home, "answers"); filepath.Dir(file.Path) != dir || !filepath.IsAbs(file.Path) {
		t.Errorf("got the file %s, want one in %s", file.Path, dir)
	}
	if name := filepath.Base(file.Path); !regexp.MustCompile(`^answer-20260206-130000-[a-z2-7]{12}\.[a-z]{2,4}$`).MatchString(name) {
		t.Errorf("got the name %s", name)
	}
	for path, want := range map[string]os.FileMode{file.Path: 0o600, filepath.Dir(file.Path): 0o700} {
		if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != want {
			t.Errorf("%s: got %v (%v), want %v", path, info.Mode(), err, want)
		}
	}
	data, err := os.ReadFile(file.Path)
	if err != nil || int64(len(data)) != file.Size {
		t.Errorf("got %d bytes (%v), want %d", len(data), err, file.Size)
	}
	return string(data)
}

func TestDoWritesLongTextToAFile(t *testing.T) {
	secret := token("my-agent", 1)
	words := strings.Repeat("some words, and more of them. ", 9000)
	spelled := func(text string) string {
		var b strings.Builder
		for _, disguise := range []string{"plain", "base64", "base64 after 1 byte", "base64url", "hex", "every % escape", "HTML", "URL", "JSON in JSON"} {
			b.WriteString(text[:100_000] + disguises[disguise](secret) + " ")
		}
		return b.String()
	}
	for _, tt := range []struct{ name, kind, body, ending string }{
		{"a text", "text/plain", words, ".txt"},
		{"JSON", "application/problem+json; charset=utf-8", `{"a":"` + words + `"}`, ".json"},
		{"a table", "text/csv", words, ".csv"},
		{"a page", "text/html", "<script>" + words, ".txt"},
		{"a kind that is none", "../../x.sh", words, ".txt"},
		{"one byte more than is returned", "", strings.Repeat("a", shownLimit+1), ".txt"},
		{"a secret across what is returned", "", words[:shownLimit-20] + secret + words, ".txt"},
		{"every spelling", "", spelled(words), ".txt"},
		{"secrets everywhere", "", strings.Repeat(secret+" ", 11_500), ".txt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t).on("/x", reply(200, tt.body, "Content-Type", tt.kind))
			f, k := homely(t, s)

			got, err := f.Lifecycle.Do(t.Context(), k, get("/x"))
			if err != nil {
				t.Fatal(err)
			}

			text := f.content(t, got.File)
			if got.File.Truncated || !got.Truncated || got.Unfiled != "" || got.Binary != "" || filepath.Ext(got.File.Path) != tt.ending {
				t.Errorf("got %+v, truncated %v", got.File, got.Truncated)
			}
			if len(got.Body) < shownLimit-3 || len(got.Body) > shownLimit || !strings.HasPrefix(text, string(got.Body)) {
				t.Errorf("got %d bytes, want the first 256 KiB of the file", len(got.Body))
			}
			if want := f.Scrubber.Clean(tt.body); text != want && f.Scrubber.Bare(text) != f.Scrubber.Bare(want) {
				t.Errorf("got %d bytes in the file, want %d", len(text), len(want))
			}
			if leaks(f.Scrubber.Bare(text), secret) || strings.Contains(text, secret[len(secret)-16:]) {
				t.Error("the file has the secret in it")
			}
			if names := f.kept(t); len(names) != 1 {
				t.Errorf("got the files %v, want one", names)
			}
		})
	}
}

func TestDoWritesNoFileForWhatFits(t *testing.T) {
	secret := token("my-agent", 1)
	for name, body := range map[string]string{
		"at the limit":            strings.Repeat("a", shownLimit),
		"short once it is masked": strings.Repeat(secret+" ", 10_000),
	} {
		s := newService(t).on("/x", reply(200, body))
		f, k := homely(t, s)

		got, err := f.Lifecycle.Do(t.Context(), k, get("/x"))

		if err != nil || got.Truncated || got.File != nil || string(got.Body) != f.Scrubber.Clean(body) || len(f.kept(t)) != 0 {
			t.Errorf("%s: got %d bytes, truncated %v, and the file %v (%v), want all of it and no file", name, len(got.Body), got.Truncated, got.File, err)
		}
	}
}

// huge writes so many bytes of a text.
func huge(n int, chunk string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for ; n > 0; n -= len(chunk) {
			if _, err := w.Write([]byte(chunk)); err != nil {
				return
			}
		}
	}
}

func TestAFileHasABound(t *testing.T) {
	s := newService(t).on("/x", huge(64<<20, strings.Repeat(strings.Repeat("words ", 10_000)+token("my-agent", 1)+"\n", 4)))
	f, k := homely(t, s)

	got, err := f.Lifecycle.Do(t.Context(), k, get("/x"))
	if err != nil {
		t.Fatal(err)
	}

	text := f.content(t, got.File)
	if !got.File.Truncated || got.File.Size > fileLimit || got.File.Size < fileLimit-4 || strings.Contains(text, "SecretKey") {
		t.Errorf("got %+v, want the first 32 MiB", got.File)
	}
}

func TestDoWritesLargeBinariesToAFile(t *testing.T) {
	secret := token("my-agent", 1)
	png := "\x89PNG\r\n\x1a\n" + strings.Repeat("\x00\xff\x13", 200_000)
	for _, tt := range []struct {
		name, body, want string
		withheld         bool
	}{
		{"an image", png, "image/png, 600008 bytes", false},
		{"noise", strings.Repeat("\xfe\x01", 150_000), "application/octet-stream, 300000 bytes", false},
		{"with a secret", png + secret + png, "image/png, more than 262144 bytes", true},
		{"text and a secret before it", strings.Repeat("words ", 60_000) + secret + png, "text/plain, more than 262144 bytes", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t).on("/x", reply(200, tt.body))
			f, k := homely(t, s)

			got, err := f.Lifecycle.Do(t.Context(), k, get("/x"))
			if err != nil {
				t.Fatal(err)
			}

			if got.Binary != tt.want || len(got.Body) != 0 || got.Truncated {
				t.Errorf("got %q and %d bytes, want %q and none", got.Binary, len(got.Body), tt.want)
			}
			if tt.withheld {
				if got.File != nil || !strings.Contains(got.Unfiled, "withheld") || len(f.kept(t)) != 0 {
					t.Errorf("got %+v, %q and the files %v, want it withheld", got.File, got.Unfiled, f.kept(t))
				}
			} else if f.content(t, got.File) != tt.body {
				t.Error("got another file than what came")
			}
		})
	}
}

// What is compressed is looked through once it is not any more; an encoding
// that nobody asked for could hide anything.
func TestDoLooksIntoWhatIsCompressed(t *testing.T) {
	secret := token("my-agent", 1)
	for _, size := range []int{10, 60_000} {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		fmt.Fprint(z, strings.Repeat("words ", size)+secret+" end")
		_ = z.Close()
		s := newService(t).on("/gzip", reply(200, packed.String(), "Content-Encoding", "gzip")).
			on("/br", reply(200, packed.String()+strings.Repeat("\x00", 10*size), "Content-Encoding", "br"))
		f, k := homely(t, s)

		got, err := f.Lifecycle.Do(t.Context(), k, get("/gzip"))
		if err != nil {
			t.Fatal(err)
		}
		text := string(got.Body)
		if size > 1000 {
			text = f.content(t, got.File)
		}
		if strings.Contains(text, "SecretKey") || !strings.HasSuffix(text, "lona_partner_my-agent_… end") {
			t.Errorf("%d words: got %d bytes, want the text without the secret", size, len(text))
		}
		got, err = f.Lifecycle.Do(t.Context(), k, get("/br"))
		if err != nil || got.File != nil || len(got.Body) != 0 || !strings.Contains(got.Binary, "Content-Encoding") {
			t.Errorf("%d words: got %+v (%v), want it withheld", size, got, err)
		}
	}
}

// An answer that nobody sees leaves no file, nor does one that breaks off; and
// at no time is there a secret in one.
func TestNoFileIsLeftBehind(t *testing.T) {
	secret := token("my-agent", 1)
	long := strings.Repeat("words and "+secret+strings.Repeat(" more words", 20), 2_000)
	for _, tt := range []struct {
		name   string
		first  http.HandlerFunc
		method string
		status int // 0: no answer
	}{
		{"an answer that is tried again", reply(503, long), "GET", 200},
		{"a redirect", reply(302, long, "Location", "/y"), "GET", 200},
		{"a redirect elsewhere", reply(302, long, "Location", "https://other.example/"), "POST", 0},
		{"an answer that breaks off", raw("HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + long), "POST", 0},
		{"chunks that break off", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s", len(long)+9, long)), "POST", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t)
			f, k := homely(t, s)
			s.in("/x", tt.first, reply(200, "short")).on("/y", reply(200, "short"))

			got, err := f.Lifecycle.Do(t.Context(), k, gateway.Request{Method: tt.method, Path: "/x"})

			if (err == nil) != (tt.status != 0) || got.Status != tt.status || len(f.kept(t)) != 0 {
				t.Errorf("got %d (%v) and the files %v, want %d and none", got.Status, err, f.kept(t), tt.status)
			}
		})
	}
	t.Run("while it is written", func(t *testing.T) {
		s := newService(t)
		f, k := homely(t, s)
		s.on("/x", func(w http.ResponseWriter, _ *http.Request) {
			for range 6 {
				fmt.Fprint(w, long[:200_000])
				for _, name := range f.kept(t) {
					data, err := os.ReadFile(filepath.Join(f.home, "answers", name))
					if err != nil || !strings.HasPrefix(name, ".") || bytes.Contains(data, []byte("SecretKey")) {
						t.Errorf("%s (%v) is there or has a secret in it before the answer is whole", name, err)
					}
				}
			}
		})
		if got, err := f.Lifecycle.Do(t.Context(), k, get("/x")); err != nil || got.File == nil {
			t.Errorf("got %+v (%v), want a file", got.File, err)
		}
	})
	t.Run("a store that fails on the way", func(t *testing.T) {
		s := newService(t)
		store := &failing{Store: credstore.NewMemory(frozen)}
		f, k := homely(t, s, func(s *setup) { s.store = store })
		s.on("/x", func(w http.ResponseWriter, r *http.Request) {
			store.list = errLocked
			reply(200, long)(w, r)
		})
		_, err := f.Lifecycle.Do(t.Context(), k, get("/x"))
		wantError(t, err, gateway.CodeWithheld)
		if len(f.kept(t)) != 0 {
			t.Errorf("got the files %v, want none", f.kept(t))
		}
	})
}

// A file that cannot be written is said, and the answer is shown as far as it
// would be anyway.
func TestAFileThatCannotBeWritten(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, home string) error{
		"the folder is a file": func(_ *testing.T, home string) error { return write(filepath.Join(home, "answers"), "mine", frozen()) },
		"the folder is a link": func(t *testing.T, home string) error {
			if err := os.MkdirAll(home, 0o700); err != nil {
				return err
			}
			return os.Symlink(t.TempDir(), filepath.Join(home, "answers"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t).on("/x", reply(200, strings.Repeat("words ", 60_000)))
			f, k := homely(t, s)
			if err := spoil(t, f.home); err != nil {
				t.Fatal(err)
			}

			got, err := f.Lifecycle.Do(t.Context(), k, get("/x"))

			if err != nil || got.Status != 200 || len(got.Body) != shownLimit || !got.Truncated || got.File != nil || !strings.Contains(got.Unfiled, "could not be written") {
				t.Errorf("got %d bytes and %q (%v), want the beginning and what went wrong", len(got.Body), got.Unfiled, err)
			}
		})
	}
}

// write makes a file of an age.
func write(path, text string, at time.Time) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Chtimes(path, at, at)
}

func TestOldFilesAreRemoved(t *testing.T) {
	s := newService(t).on("/x", reply(200, strings.Repeat("words ", 60_000))).on("/short", reply(200, "short"))
	f, k := homely(t, s)
	in := func(name string) string { return filepath.Join(f.home, "answers", name) }
	for name, age := range map[string]time.Duration{
		"answer-old.txt": 8 * 24 * time.Hour, "answer-new.txt": 6 * 24 * time.Hour, "mine.txt": 99 * 24 * time.Hour,
		".answer-given-up.txt": 2 * time.Hour, ".answer-under-way.txt": time.Minute,
	} {
		if err := write(in(name), "text", start.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"answer-large-3.txt", "answer-large-2.txt", "answer-large-1.txt"} {
		if err := write(in(name), "", start); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(in(name), 100<<20); err != nil {
			t.Fatal(err)
		}
		if at := start.Add(-time.Duration(i) * time.Hour); os.Chtimes(in(name), at, at) != nil {
			t.Fatal("no times")
		}
	}

	// The first request of a process does it, whatever is asked for.
	if _, err := f.Lifecycle.Do(t.Context(), k, get("/short")); err != nil {
		t.Fatal(err)
	}
	want := []string{".answer-under-way.txt", "answer-large-2.txt", "answer-large-3.txt", "mine.txt"}
	if got := f.kept(t); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}

	got, err := f.Lifecycle.Do(t.Context(), k, get("/x"))
	if err != nil {
		t.Fatal(err)
	}
	f.content(t, got.File) // the folder that others could read is for nobody else now
	if got, want := len(f.kept(t)), 5; got != want {
		t.Errorf("got %d files, want %d", got, want)
	}
}

func TestNoFilesWithoutAHome(t *testing.T) {
	t.Chdir(t.TempDir())
	s := newService(t).on("/x", reply(200, strings.Repeat("words ", 60_000)))
	f, k := homely(t, s, func(s *setup) { s.home = "" })

	got, err := f.Lifecycle.Do(context.Background(), k, get("/x"))

	if entries, _ := os.ReadDir("."); err != nil || !got.Truncated || got.File != nil || got.Unfiled != "" || len(entries) != 0 {
		t.Errorf("got %+v, %q and %v (%v), want a body that is cut", got.File, got.Unfiled, entries, err)
	}
}
