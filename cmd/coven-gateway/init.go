package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"coven-gateway/internal/config"
)

func initCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Set up a gateway: write its configuration and make its owner",
		Long: `Set up a gateway: write its configuration and make its owner.

It asks a few questions; an empty answer takes what stands in brackets. Without a
terminal, or at the end of the input, the rest of the answers are those.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := configFile(path)
			if err != nil {
				return err
			}
			if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
				return errors.Join(fmt.Errorf("%s exists: edit it, or move it away and start again", file), err)
			}
			q := questions{bufio.NewScanner(cmd.InOrStdin()), cmd.OutOrStdout()}
			s, name, err := q.ask(file)
			if err != nil {
				return err
			}
			if err := writeConfig(file, s); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "\nwrote %s (only you can read it)\n", file)
			return bootstrap(cmd.Context(), cmd.OutOrStdout(), file, name, false)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "write the configuration to `file`")
	return cmd
}

// questions are asked on a terminal.
type questions struct {
	in  *bufio.Scanner
	out io.Writer
}

// ask asks everything.
func (q questions) ask(file string) (s settings, name string, err error) {
	fmt.Fprintf(q.out, "This sets up a gateway with the configuration %s.\n", file)
	s = newSettings()
	address := func(a string) error {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return errors.New("write host:port, for example 127.0.0.1:8080, or :8080 for every network interface")
		}
		return nil
	}
	if s.HTTPAddr, err = q.one("\nWhere do people, browsers and bridges connect (HTTP)? An address that starts with 127.0.0.1 is\nreached from this machine only.", s.HTTPAddr, address); err != nil {
		return s, "", err
	}
	if s.GRPCAddr, err = q.one("\nWhere do agents and command lines connect (gRPC)? Existing programs expect port 50051.", s.GRPCAddr, address); err != nil {
		return s, "", err
	}
	if s.DataDir, err = q.one("\nWhere does the gateway keep its data? (empty: the standard place)", "", nil); err != nil {
		return s, "", err
	}
	mode, err := q.one("\nWhat becomes of agents whose key the gateway does not know? disabled: refused. pending: they wait\nuntil you approve them. approved: whoever reaches the gateway may use it.", string(s.AutoRegistration), func(a string) error {
		switch config.AutoRegistration(a) {
		case config.Disabled, config.Pending, config.Approved:
			return nil
		}
		return errors.New("write disabled, pending or approved")
	})
	if err != nil {
		return s, "", err
	}
	s.AutoRegistration = config.AutoRegistration(mode)
	name, err = q.one("\nWhat is your name? You will be the owner, who may do everything.", "Owner", func(a string) error { return checkOwnerName(true, a) })
	return s, name, err
}

// one asks one question until the answer is good.
func (q questions) one(text, standard string, check func(string) error) (string, error) {
	fmt.Fprintln(q.out, text)
	for {
		fmt.Fprintf(q.out, "[%s] ", standard)
		answer := standard
		if q.in.Scan() {
			if a := strings.TrimSpace(q.in.Text()); a != "" {
				answer = a
			}
		} else {
			fmt.Fprintln(q.out)
			return standard, q.in.Err()
		}
		if check == nil {
			return answer, nil
		}
		err := check(answer)
		if err == nil {
			return answer, nil
		}
		fmt.Fprintln(q.out, err)
	}
}
