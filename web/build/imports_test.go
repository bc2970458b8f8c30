package main

import "regexp"

var (
	staticImport = regexp.MustCompile(`(?:import|from)"\./([^"]+\.js)"`)
	asset        = regexp.MustCompile(`static/([\w.-]+\.(?:js|css))`)
)
