package run

import (
	"maps"
	"slices"
	"strings"
)

// BundleVariables name the file with the certificates to trust, each for another
// family of clients. All of them get the same bundle.
func BundleVariables() []string {
	return []string{
		"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE",
		"DENO_CERT", "PIP_CERT", "NPM_CONFIG_CAFILE", "CARGO_HTTP_CAINFO", "HTTPLIB2_CA_CERTS", "NIX_SSL_CERT_FILE",
		"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "BUNDLE_SSL_CA_CERT", "PERL_LWP_SSL_CA_FILE",
	}
}

// hostVariables lead to sockets and agents of the host, which are hidden inside.
func hostVariables() []string {
	return []string{
		"SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_AGENT_INFO", "DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS", "TMUX", "STY",
		"DOCKER_HOST", "CONTAINER_HOST", "WAYLAND_DISPLAY", "DISPLAY", "XAUTHORITY", "SUDO_ASKPASS", "SSH_ASKPASS", "NOTIFY_SOCKET",
		"CREDENTIALS_DIRECTORY", "LISTEN_FDS", "LISTEN_PID", "VSCODE_IPC_HOOK_CLI", "GNOME_KEYRING_CONTROL",
	}
}

// CleanEnv is the environment for a command: environ without what drop names and
// without the variables that lead to the host's agents, and with set. A variable
// that stands several times counts by its last value, as in a shell.
func CleanEnv(environ []string, drop func(key, value string) bool, set map[string]string) []string {
	values := map[string]string{}
	for _, pair := range environ {
		if key, value, found := strings.Cut(pair, "="); found && key != "" {
			values[key] = value
		}
	}
	maps.DeleteFunc(values, drop)
	for _, key := range hostVariables() {
		delete(values, key)
	}
	maps.Copy(values, set)
	env := make([]string, 0, len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		env = append(env, key+"="+values[key])
	}
	return env
}
