// Command controlplane is etcd, kube-apiserver and kube-controller-manager in one file: argv[1] says which one runs.
//
// A fourth one, service-proxy, does kube-proxy's part with what the others bring along anyway.
//
// No package registry ships these programs as binaries; their Go modules export the command constructors, so one
// build of a few lines gives all three and shares the code they have in common.
package main

import (
	"fmt"
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

const usage = "usage: controlplane etcd|kube-apiserver|kube-controller-manager|service-proxy [flags], or make-key FILE"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	name := os.Args[1]
	os.Args = append([]string{name}, os.Args[2:]...)
	switch name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllermanager.NewControllerManagerCommand()))
	case "service-proxy":
		serviceProxy()
	case "make-key":
		if len(os.Args) != 2 {
			fmt.Fprintln(os.Stderr, usage)
			os.Exit(2)
		}
		writeKey(os.Args[1])
	default:
		fmt.Fprintf(os.Stderr, "controlplane: unknown program %q; %s\n", name, usage)
		os.Exit(2)
	}
}
