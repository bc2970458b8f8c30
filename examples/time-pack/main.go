// Time-pack offers two tools to agents: the time anywhere, and pages of hosts that are allowed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"coven-gateway/sdk/pack"
)

// maxPage bounds what is fetched of a page, in bytes.
const maxPage = 256 << 10

func main() {
	server := flag.String("server", "127.0.0.1:50051", "gRPC `address` of the gateway")
	key := flag.String("key", "", "log in with the OpenSSH private key in `file`")
	allow := flag.String("allow", "", "`hosts` that pages may be fetched from, separated by commas")
	flag.Parse()

	opts := pack.Options{Server: *server, ID: "time-pack", Version: "1.0", Tools: []pack.Tool{
		pack.Func("time_now", "Tell the time in a time zone", timeNow),
		pack.Func("http_fetch", "Fetch a page from an allowed host", fetcher(strings.Split(*allow, ","))),
	}}
	if *key != "" {
		var err error
		if opts.Credentials, err = pack.KeyFile(*key); err != nil {
			log.Fatal(err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := pack.Run(ctx, opts); err != nil {
		log.Fatal(err)
	}
}

type zone struct {
	Zone string `json:"zone,omitempty" description:"IANA name such as Europe/Berlin; UTC where it is missing"`
}

type moment struct {
	Time    string `json:"time"`
	Weekday string `json:"weekday"`
}

func timeNow(_ context.Context, in zone) (moment, error) {
	loc, err := time.LoadLocation(in.Zone)
	if err != nil {
		return moment{}, fmt.Errorf("unknown zone %q", in.Zone)
	}
	now := time.Now().In(loc)
	return moment{now.Format(time.RFC3339), now.Weekday().String()}, nil
}

type page struct {
	URL string `json:"url" description:"An http or https URL"`
}

type content struct {
	Status    int    `json:"status"`
	Type      string `json:"type"`
	Body      string `json:"body"`
	Truncated bool   `json:"truncated"`
}

// fetcher returns a tool that fetches from some hosts only, redirects included.
func fetcher(hosts []string) func(context.Context, page) (content, error) {
	allowed := func(u *url.URL) error {
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || !slices.Contains(hosts, u.Host) {
			return fmt.Errorf("%s is not allowed", u.Redacted())
		}
		return nil
	}
	client := &http.Client{CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return errors.New("too many redirects")
		}
		return allowed(r.URL)
	}}
	return func(ctx context.Context, in page) (content, error) {
		u, err := url.Parse(in.URL)
		if err != nil {
			return content{}, errors.New("url is not a URL")
		}
		if err := allowed(u); err != nil {
			return content{}, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return content{}, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return content{}, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
		if err != nil {
			return content{}, err
		}
		c := content{Status: resp.StatusCode, Type: resp.Header.Get("Content-Type"), Truncated: len(body) > maxPage}
		c.Body = strings.ToValidUTF8(string(body[:min(len(body), maxPage)]), "\uFFFD")
		return c, nil
	}
}
