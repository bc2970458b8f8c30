//go:build race

package gatewaytest

// raceDetector makes everything slower by an order of magnitude.
const raceDetector = true
