// Command mmapio tells what of files is in RAM, and locks files there.
package main

import (
	"context"
	"os"

	"github.com/mmapio/mmapio/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
