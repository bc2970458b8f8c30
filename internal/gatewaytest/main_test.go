package gatewaytest_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"coven-gateway/internal/gatewaytest"
)

// TestMain: tests that were all run must have seen every answer that the documentation of the API
// describes.
func TestMain(m *testing.M) {
	code := m.Run()
	if chosen := flag.Lookup; code == 0 && chosen("test.run").Value.String() == "" && chosen("test.skip").Value.String() == "" && chosen("test.list").Value.String() == "" && !testing.Short() {
		missing, all, err := gatewaytest.Unseen()
		if err != nil || len(missing) > 0 {
			fmt.Printf("FAIL: of %d documented answers no test has produced these %d: %v\n%s\n", all, len(missing), err, strings.Join(missing, "\n"))
			code = 1
		}
	}
	os.Exit(code)
}
