package gateway

import (
	"net"
	"strings"

	"coven-gateway/internal/config"
)

// mcpEndpoint is the URL of the MCP server that agents are told: the configured one, else below the
// address that people use, else where the gateway listens.
func (g *Gateway) mcpEndpoint(cfg config.Config) string {
	if cfg.MCP.Endpoint != "" {
		return strings.TrimRight(cfg.MCP.Endpoint, "/")
	}
	if cfg.WebAdmin.BaseURL != "" {
		return cfg.WebAdmin.BaseURL + "/mcp"
	}
	addr := g.http.Addr().String()
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip.IsUnspecified()) {
		addr = net.JoinHostPort("127.0.0.1", port)
		g.logger.Warn("agents are told that the MCP server is on this machine; set mcp.endpoint or webadmin.base_url if some run elsewhere", "endpoint", g.scheme()+"://"+addr+"/mcp")
	}
	return g.scheme() + "://" + addr + "/mcp"
}

// issuer is what clients know the authorization server by: the address that people use, its path
// included, else the place where they reach the pages.
func (g *Gateway) issuer(cfg config.Config) string {
	if cfg.WebAdmin.BaseURL != "" {
		return cfg.WebAdmin.BaseURL
	}
	return g.origin
}
