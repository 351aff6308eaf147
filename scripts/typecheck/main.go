// Typecheck checks the types of every package of this module, tests included,
// for each GOOS/GOARCH named, and fails if one has an error.
//
//	go run ./scripts/typecheck -tags x linux/riscv64 plan9/386
//
// It reads the standard library and the dependencies from source without
// their function bodies, so that a target takes two seconds where go vet,
// which compiles all of them first, takes a minute.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// pkg is what go list -json says of a package.
type pkg struct {
	ImportPath, Dir, Name string
	GoFiles               []string
	ImportMap             map[string]string // import path in the source to ImportPath
	ForTest               string
	Module                *struct {
		Main      bool
		GoVersion string
	}
	Error *struct{ Err string }
}

func (p *pkg) own() bool { return p.Module != nil && p.Module.Main }

func main() {
	tags := flag.String("tags", "", "build tags, separated by commas")
	flag.Parse()
	c := checker{fset: token.NewFileSet(), files: map[string]*ast.File{}}
	failed := 0
	for _, target := range flag.Args() {
		n, errs := c.check(target, *tags)
		if len(errs) == 0 {
			fmt.Printf("%-18s types ok, %d packages\n", target, n)
			continue
		}
		failed++
		fmt.Printf("%-18s FAILED\n", target)
		// A package and its variant for tests have the same errors.
		said := map[string]bool{}
		for _, err := range errs {
			if !said[err.Error()] {
				fmt.Println("   ", err)
			}
			said[err.Error()] = true
		}
	}
	if failed > 0 {
		os.Exit(1)
	}
}

type checker struct {
	fset  *token.FileSet
	files map[string]*ast.File // shared by the targets; the type checker does not change them
}

// check returns how many packages of this module it checked and what is wrong.
func (c *checker) check(target, tags string) (checked int, errs []error) {
	goos, goarch, ok := strings.Cut(target, "/")
	if !ok {
		return 0, []error{fmt.Errorf("%q is not GOOS/GOARCH", target)}
	}
	list, err := list(goos, goarch, tags)
	if err != nil {
		return 0, []error{err}
	}
	done := map[string]*types.Package{"unsafe": types.Unsafe}
	for _, p := range list {
		if p.Error != nil && p.own() {
			errs = append(errs, fmt.Errorf("%s: %s", p.ImportPath, p.Error.Err))
			continue
		}
		// The main package of a test binary is generated and has no source here.
		if p.ImportPath == "unsafe" || p.Name == "main" && strings.HasSuffix(p.ImportPath, ".test") {
			continue
		}
		files, err := c.parse(p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		conf := types.Config{
			Importer:         importMap{p.ImportMap, done},
			IgnoreFuncBodies: !p.own(),
			Sizes:            types.SizesFor("gc", goarch),
			Error:            func(err error) { errs = append(errs, err) },
		}
		if p.Module != nil && p.Module.GoVersion != "" {
			conf.GoVersion = "go" + p.Module.GoVersion
		}
		// ImportPath of a variant reads "path [path.test]".
		path, _, _ := strings.Cut(p.ImportPath, " ")
		done[p.ImportPath], _ = conf.Check(path, c.fset, files, nil) // errors come by conf.Error
		if p.own() {
			checked++
		}
	}
	if checked == 0 && len(errs) == 0 {
		errs = []error{errors.New("no package of this module is built there")}
	}
	return checked, errs
}

func (c *checker) parse(p *pkg) ([]*ast.File, error) {
	files := make([]*ast.File, 0, len(p.GoFiles))
	for _, name := range p.GoFiles {
		if !filepath.IsAbs(name) {
			name = filepath.Join(p.Dir, name)
		}
		f := c.files[name]
		if f == nil {
			var err error
			if f, err = parser.ParseFile(c.fset, name, nil, parser.SkipObjectResolution); err != nil {
				return nil, err
			}
			c.files[name] = f
		}
		files = append(files, f)
	}
	return files, nil
}

// list returns the module's packages, their tests and everything that they
// import, each after what it imports.
func list(goos, goarch, tags string) ([]*pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-deps", "-test", "-tags", tags,
		"-json=ImportPath,Dir,Name,GoFiles,ImportMap,ForTest,Module,Error", "./...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	var all []*pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(pkg)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		all = append(all, p)
	}
}

// importMap finds what an import in one package means among those checked.
type importMap struct {
	names map[string]string
	done  map[string]*types.Package
}

func (m importMap) Import(path string) (*types.Package, error) {
	if to, ok := m.names[path]; ok {
		path = to
	}
	if p := m.done[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s is not built on this target", path)
}
