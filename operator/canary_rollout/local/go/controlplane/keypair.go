package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log"
	"os"
)

// writeKey makes the key that signs ServiceAccount tokens; kube-apiserver takes the private key for verifying too.
func writeKey(path string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatalf("make-key: %v", err)
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		log.Fatalf("make-key: %v", err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		log.Fatalf("make-key: %v", err)
	}
}
