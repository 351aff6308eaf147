// Testreport reads the output of go test -json and says what matters of it:
// each package's result, the output of what failed, how many tests ran, passed
// and were skipped, and why. It fails if a test failed, and if none ran, since
// a platform on which nothing runs proves nothing.
//
//	go test -json ./... | testreport -name race -skips FILE
//
// With -red the named tests must each have failed, and it fails otherwise.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	name := flag.String("name", "tests", "what the tests are called in the report")
	skips := flag.String("skips", "", "append one line to this file for each reason to skip")
	red := flag.String("red", "", "tests, separated by spaces, each of which must fail")
	flag.Parse()
	r := report{name: *name, quiet: *red != ""}
	if err := r.read(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
	var ok bool
	if *red != "" {
		ok = r.checkRed(os.Stdout, strings.Fields(*red))
	} else {
		ok = r.summarize(os.Stdout)
	}
	if *skips != "" {
		if err := appendFile(*skips, r.skipLines()); err != nil {
			fmt.Fprintln(os.Stderr, "testreport:", err)
			os.Exit(1)
		}
	}
	if !ok {
		os.Exit(1)
	}
}

func appendFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
