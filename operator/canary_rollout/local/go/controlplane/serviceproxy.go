package main

import (
	"flag"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// dialTimeout bounds the connection to one endpoint; on loopback it is either there at once or refused.
const dialTimeout = 2 * time.Second

// frontend is one ClusterIP and port. Its listener is open only while there are endpoints, so that a Service without
// any refuses connections, as kube-proxy's REJECT rule does.
type frontend struct {
	listener  net.Listener
	endpoints atomic.Pointer[[]string]
	next      atomic.Uint64
}

// serviceProxy is kube-proxy's part: it listens on every ClusterIP of the cluster's (loopback) Service range and
// copies bytes to ready endpoints in turn. A connection stays on its endpoint until one of the two sides ends it.
func serviceProxy() {
	kubeconfig := flag.String("kubeconfig", "", "path of the kubeconfig file")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatalf("service-proxy: %v", err)
	}
	config.UserAgent = "canary-rollout-local-service-proxy"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatalf("service-proxy: %v", err)
	}
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // a pass is due already and will see this change too
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	services := factory.Core().V1().Services()
	slices := factory.Discovery().V1().EndpointSlices()
	for _, informer := range []cache.SharedIndexInformer{services.Informer(), slices.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			log.Fatalf("service-proxy: %v", err)
		}
	}
	never := make(chan struct{})
	factory.Start(never)
	factory.WaitForCacheSync(never)
	frontends := map[string]*frontend{}
	for range changed {
		wanted, err := desired(services.Lister(), slices.Lister())
		if err != nil {
			log.Fatalf("service-proxy: %v", err)
		}
		reconcile(frontends, wanted)
	}
}

// desired maps "ClusterIP:port" to the addresses that should get its connections, for all Services that have any.
func desired(services corelisters.ServiceLister, slices discoverylisters.EndpointSliceLister) (map[string][]string, error) {
	allServices, err := services.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	allSlices, err := slices.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	byService := map[string][]*discoveryv1.EndpointSlice{}
	for _, slice := range allSlices {
		key := slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]
		byService[key] = append(byService[key], slice)
	}
	wanted := map[string][]string{}
	for _, service := range allServices {
		if service.Spec.ClusterIP == "" || service.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		for _, port := range service.Spec.Ports {
			if port.Protocol != corev1.ProtocolTCP {
				continue
			}
			if found := endpoints(byService[service.Namespace+"/"+service.Name], port.Name); len(found) > 0 {
				wanted[net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(port.Port)))] = found
			}
		}
	}
	return wanted, nil
}

// endpoints returns the ready addresses of one Service port, or, when none is ready, those that terminate but still
// serve (kube-proxy's rule too).
func endpoints(slices []*discoveryv1.EndpointSlice, portName string) []string {
	var ready, serving []string
	for _, slice := range slices {
		for _, port := range slice.Ports {
			if port.Port == nil || (port.Name != nil && *port.Name != portName) || (port.Name == nil && portName != "") {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				if len(endpoint.Addresses) == 0 {
					continue
				}
				address := net.JoinHostPort(dialled(endpoint.Addresses[0]), strconv.Itoa(int(*port.Port)))
				conditions := endpoint.Conditions
				switch {
				case conditions.Ready == nil || *conditions.Ready:
					ready = append(ready, address)
				case conditions.Serving != nil && *conditions.Serving && conditions.Terminating != nil && *conditions.Terminating:
					serving = append(serving, address)
				}
			}
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return serving
}

// dialled maps a pod's address 10.a.b.c, which EndpointSlices accept, to 127.a.b.c, where its process listens.
func dialled(address string) string {
	if rest, found := strings.CutPrefix(address, "10."); found {
		return "127." + rest
	}
	return address
}

func reconcile(frontends map[string]*frontend, wanted map[string][]string) {
	for address, known := range frontends {
		if _, stays := wanted[address]; !stays {
			known.listener.Close() // established connections are not the listener's and go on
			delete(frontends, address)
		}
	}
	for address, targets := range wanted {
		known, exists := frontends[address]
		if !exists {
			listener, err := net.Listen("tcp4", address)
			if err != nil {
				log.Printf("service-proxy: cannot listen on %s: %v (ports below 1024 need rights: use a higher Service port)", address, err)
				continue
			}
			known = &frontend{listener: listener}
			frontends[address] = known
			known.endpoints.Store(&targets)
			go known.serve()
			continue
		}
		known.endpoints.Store(&targets)
	}
}

func (f *frontend) serve() {
	for {
		connection, err := f.listener.Accept()
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() || isShortage(err) {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			return // closed: the Service or its last endpoint is gone
		}
		go f.forward(connection.(*net.TCPConn))
	}
}

func isShortage(err error) bool {
	operation, ok := err.(*net.OpError)
	if !ok {
		return false
	}
	call, ok := operation.Err.(*os.SyscallError)
	return ok && (call.Err == syscall.EMFILE || call.Err == syscall.ENFILE || call.Err == syscall.ECONNABORTED)
}

func (f *frontend) forward(client *net.TCPConn) {
	backend := f.dial()
	if backend == nil {
		client.SetLinger(0) // the client sees a reset, not an orderly end of an empty answer
		client.Close()
		return
	}
	done := make(chan struct{})
	go func() { copyHalf(backend, client); close(done) }()
	copyHalf(client, backend)
	<-done
	client.Close()
	backend.Close()
}

// dial tries each endpoint at most once, beginning with the one whose turn it is. Nothing has been sent yet, so another
// try is harmless; it bridges the moment between a process's end and its pod's status.
func (f *frontend) dial() *net.TCPConn {
	targets := *f.endpoints.Load()
	first := f.next.Add(1)
	for try := range uint64(len(targets)) {
		connection, err := net.DialTimeout("tcp4", targets[(first+try)%uint64(len(targets))], dialTimeout)
		if err == nil {
			return connection.(*net.TCPConn)
		}
	}
	return nil
}

// copyHalf copies one direction (by splice(2), the bytes never reach this process) and passes on how it ended.
func copyHalf(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.SetLinger(0)
		to.Close()
		from.SetLinger(0)
		from.Close()
		return
	}
	to.CloseWrite()
}
