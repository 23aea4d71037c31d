// runc-lite runs the runc named by RUNC with only the capabilities that this
// machine can give.
//
// A privileged container asks for every capability there is. Where the
// machine's own bounding set lacks one (virtual machines of CI systems often
// withhold CAP_SYS_RESOURCE), the kernel refuses the whole set and no kind node
// starts. On a machine that withholds nothing this changes nothing.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Names in the kernel's order: the bit in a capability mask is the index.
var capabilities = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
	SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
	AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
	PERFMON BPF CHECKPOINT_RESTORE`)

func main() {
	log.SetPrefix("runc-lite: ")
	runc := os.Getenv("RUNC")
	if runc == "" {
		log.Fatal("RUNC does not name the runc to run")
	}
	if spec := specPath(os.Args[1:]); spec != "" {
		if err := restrict(spec); err != nil {
			log.Fatal(err)
		}
	}
	log.Fatal(syscall.Exec(runc, append([]string{runc}, os.Args[1:]...), os.Environ()))
}

// specPath finds the file that holds the capabilities: the bundle's
// configuration for create and run, the process description for exec.
func specPath(args []string) string {
	for i, arg := range args[:max(len(args)-1, 0)] {
		switch arg {
		case "--bundle", "-b":
			return filepath.Join(args[i+1], "config.json")
		case "--process", "-p":
			return args[i+1]
		}
	}
	return ""
}

func restrict(path string) error {
	missing, err := missingCapabilities()
	if err != nil || len(missing) == 0 {
		return err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec map[string]any
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber() // 64-bit limits do not survive a float
	if err := decoder.Decode(&spec); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	process, isBundle := spec["process"].(map[string]any)
	if !isBundle {
		process = spec
	}
	sets, _ := process["capabilities"].(map[string]any)
	for set, value := range sets {
		sets[set] = without(value, missing)
	}
	if content, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}

func without(value any, missing map[string]bool) []any {
	asked, _ := value.([]any)
	given := make([]any, 0, len(asked))
	for _, name := range asked {
		if text, isText := name.(string); !isText || !missing[text] {
			given = append(given, name)
		}
	}
	return given
}

func missingCapabilities() (map[string]bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(status)) {
		hex, found := strings.CutPrefix(line, "CapBnd:")
		if !found {
			continue
		}
		bounding, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			return nil, err
		}
		missing := map[string]bool{}
		for bit, name := range capabilities {
			if bounding>>bit&1 == 0 {
				missing["CAP_"+name] = true
			}
		}
		return missing, nil
	}
	return nil, errors.New("/proc/self/status has no CapBnd line")
}
