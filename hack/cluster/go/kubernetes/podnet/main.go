// podnet gives one node of a kind cluster its pod network.
//
// kind's own kindnetd is published as an image only, never as a Go module, so
// a machine without a registry cannot have it. All nodes share one subnet, and
// that leaves little to do: tell the container runtime which addresses this
// node's pods take, and send the other nodes' pod addresses to those nodes.
// There is no masquerading (nothing leaves the cluster) and no NetworkPolicy.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	cniConfig  = "/etc/cni/net.d/10-podnet.conflist"
	retryAfter = time.Second
	resync     = time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	self := os.Getenv("NODE_NAME")
	if self == "" {
		return errors.New("NODE_NAME is not set")
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	// kube-proxy may still be waiting for this node to be ready, and the node
	// is not ready before it has a pod network: go to the API server itself.
	if endpoint := os.Getenv("CONTROL_PLANE_ENDPOINT"); endpoint != "" {
		config.Host = "https://" + endpoint
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}

	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	factory := informers.NewSharedInformerFactory(client, resync)
	nodes := factory.Core().V1().Nodes()
	if _, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())

	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
		known, err := nodes.Lister().List(labels.Everything())
		if err == nil {
			err = apply(self, known)
		}
		if err != nil {
			log.Print(err)
			time.AfterFunc(retryAfter, notify)
		}
	}
}

// apply makes this machine agree with what the API says of all nodes. A node
// that has no address or no range yet is taken up at its next change.
func apply(self string, nodes []*corev1.Node) error {
	var failures []error
	for _, node := range nodes {
		_, pods, err := net.ParseCIDR(node.Spec.PodCIDR)
		if err != nil {
			continue
		}
		if node.Name == self {
			failures = append(failures, writeCNIConfig(pods))
			continue
		}
		if gateway := internalIP(node); gateway != nil {
			if err := netlink.RouteReplace(&netlink.Route{Dst: pods, Gw: gateway}); err != nil {
				failures = append(failures, fmt.Errorf("route to %s via %s: %w", pods, gateway, err))
			}
		}
	}
	return errors.Join(failures...)
}

func internalIP(node *corev1.Node) net.IP {
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return net.ParseIP(address.Address)
		}
	}
	return nil
}

// writeCNIConfig replaces the file in one step: the runtime reloads it at any
// change and would take half of it for the whole.
func writeCNIConfig(pods *net.IPNet) error {
	type object = map[string]any
	content, err := json.MarshalIndent(object{
		"cniVersion": "0.3.1",
		"name":       "podnet",
		"plugins": []object{
			{
				"type":   "ptp",
				"ipMasq": false,
				"ipam": object{
					"type":    "host-local",
					"dataDir": "/run/cni-ipam-state",
					"routes":  []object{{"dst": "0.0.0.0/0"}},
					"ranges":  [][]object{{{"subnet": pods.String()}}},
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	if current, err := os.ReadFile(cniConfig); err == nil && bytes.Equal(current, content) {
		return nil
	}
	partial := filepath.Join(filepath.Dir(cniConfig), ".podnet.partial")
	if err := os.WriteFile(partial, content, 0o644); err != nil {
		return err
	}
	log.Printf("pods of this node take their addresses from %s", pods)
	return os.Rename(partial, cniConfig)
}
