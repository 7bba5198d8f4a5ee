// Command cri runs one container in a pod of its own through the Container Runtime
// Interface, the way the kubelet does, with CDI devices asked for in the request's
// field or in an annotation. It prints what the container printed and ends with its
// exit status; 125 is a failure before the container ran.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// request is a container that is wanted.
type request struct {
	socket, image, logs string
	devices             string
	annotation          bool
	user                int64
	readOnly, userns    bool
	capability          string
	command             []string
}

func main() {
	var r request
	flag.StringVar(&r.socket, "socket", "", "`path` of the runtime's socket")
	flag.StringVar(&r.image, "image", "", "`name` of the image")
	flag.StringVar(&r.logs, "logs", "", "`directory` for the container's log")
	flag.StringVar(&r.devices, "devices", "", "qualified CDI `names`, separated by commas")
	flag.BoolVar(&r.annotation, "annotation", false, "ask for them with an annotation, as before Kubernetes 1.28")
	flag.Int64Var(&r.user, "user", -1, "user and group `id` of the process")
	flag.BoolVar(&r.readOnly, "read-only", false, "a root file system that cannot be written to")
	flag.BoolVar(&r.userns, "userns", false, "a user namespace, as of hostUsers: false")
	flag.StringVar(&r.capability, "capability", "", "a capability more")
	flag.Parse()
	r.command = flag.Args()
	status, err := r.run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 125
	}
	os.Exit(status)
}

// run runs the container and removes it and its pod.
func (r *request) run() (status int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+r.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	client := runtime.NewRuntimeServiceClient(connection)
	if len(r.command) == 0 {
		v, err := client.Version(ctx, &runtime.VersionRequest{})
		if err == nil {
			fmt.Println(v.RuntimeName, v.RuntimeVersion)
		}
		return 0, err
	}

	namespaces := &runtime.NamespaceOption{Network: runtime.NamespaceMode_POD, Pid: runtime.NamespaceMode_CONTAINER}
	if r.userns {
		ids := []*runtime.IDMapping{{HostId: 200000, ContainerId: 0, Length: 65536}}
		namespaces.UsernsOptions = &runtime.UserNamespace{Mode: runtime.NamespaceMode_POD, Uids: ids, Gids: ids}
	}
	pod := &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: "e2e", Uid: strconv.Itoa(os.Getpid()), Namespace: "default"},
		LogDirectory: r.logs,
		Linux:        &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: namespaces}},
	}
	sandbox, err := client.RunPodSandbox(ctx, &runtime.RunPodSandboxRequest{Config: pod})
	if err != nil {
		return 0, err
	}
	defer func() {
		_, stop := client.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
		_, remove := client.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
		err = errors.Join(err, stop, remove)
	}()
	created, err := client.CreateContainer(ctx, &runtime.CreateContainerRequest{PodSandboxId: sandbox.PodSandboxId, Config: r.config(namespaces), SandboxConfig: pod})
	if err != nil {
		return 0, err
	}
	if _, err := client.StartContainer(ctx, &runtime.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return 0, err
	}
	for {
		answer, err := client.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: created.ContainerId})
		if err != nil {
			return 0, err
		}
		if answer.Status.State == runtime.ContainerState_CONTAINER_EXITED {
			return int(answer.Status.ExitCode), printLog(filepath.Join(r.logs, r.logName()))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (r *request) logName() string { return strconv.Itoa(os.Getpid()) + ".log" }

// config is the container as the kubelet would ask for it.
func (r *request) config(namespaces *runtime.NamespaceOption) *runtime.ContainerConfig {
	security := &runtime.LinuxContainerSecurityContext{NamespaceOptions: namespaces, ReadonlyRootfs: r.readOnly}
	if r.user >= 0 {
		security.RunAsUser, security.RunAsGroup = &runtime.Int64Value{Value: r.user}, &runtime.Int64Value{Value: r.user}
	}
	if r.capability != "" {
		security.Capabilities = &runtime.Capability{AddCapabilities: []string{r.capability}}
	}
	c := &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: "c"}, Image: &runtime.ImageSpec{Image: r.image},
		Command: r.command, LogPath: r.logName(),
		Linux: &runtime.LinuxContainerConfig{SecurityContext: security},
	}
	switch {
	case r.devices == "":
	case r.annotation:
		c.Annotations = map[string]string{"cdi.k8s.io/e2e_devices": r.devices}
	default:
		for name := range strings.SplitSeq(r.devices, ",") {
			c.CDIDevices = append(c.CDIDevices, &runtime.CDIDevice{Name: name})
		}
	}
	return c
}

// printLog prints what is of standard output in a container's log: "TIME stdout F text",
// where P in place of F is a line that goes on.
func printLog(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(os.Stdout)
	for line := range bytes.Lines(data) {
		fields := bytes.SplitN(line, []byte(" "), 4)
		if len(fields) < 4 {
			return fmt.Errorf("%s: a line of another form: %q", path, line)
		}
		if string(fields[1]) != "stdout" {
			continue
		}
		text := fields[3]
		if string(fields[2]) == "P" {
			text = bytes.TrimSuffix(text, []byte("\n"))
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return w.Flush()
}
