/** The files and variables a sandbox finds in place: what an image's /etc and environment would hold. */
import { INTERNAL_ADDRESS } from "../runtime/tcp.ts";
import { hostRegistries, type Certificates } from "./certificates.ts";

/** Where the runtime offers the engine's egress proxy inside a sandbox. */
export const proxyURL = "http://127.0.0.1:3128";

/** What a sandbox calls itself. */
export const hostname = "sandbox";

/** Where the coding agent is. What a user installs goes before it, as in the image. */
export const agentDirectory = "/opt/sandbox-runtime/agents";

const path = [
  "/opt/sandbox-runtime/bin",
  "/root/.local/bin",
  "/root/.npm-global/bin",
  agentDirectory,
  "/usr/local/sbin",
  "/usr/local/bin",
  "/usr/sbin",
  "/usr/bin",
  "/sbin",
  "/bin",
].join(":");

/** The environment the runtime starts with. What the Worker gives for this sandbox goes over it. */
export function sandboxEnvironment(certificates: Certificates | undefined, given: Record<string, string>) {
  const noProxy = `localhost,127.0.0.1,::1,0.0.0.0,${hostname}`;
  return {
    PATH: path,
    HOME: "/root",
    USER: "root",
    LOGNAME: "root",
    SHELL: "/bin/bash",
    LANG: "C.UTF-8",
    TMPDIR: "/tmp",
    HTTP_PROXY: proxyURL,
    HTTPS_PROXY: proxyURL,
    http_proxy: proxyURL,
    https_proxy: proxyURL,
    NO_PROXY: noProxy,
    no_proxy: noProxy,
    // Node's fetch does not read the proxy variables unless told to.
    NODE_USE_ENV_PROXY: "1",
    npm_config_prefix: "/root/.npm-global",
    npm_config_globalconfig: "/opt/sandbox-runtime/etc/npmrc",
    npm_config_update_notifier: "false",
    PIP_BREAK_SYSTEM_PACKAGES: "1",
    PIP_ROOT_USER_ACTION: "ignore",
    PIP_DISABLE_PIP_VERSION_CHECK: "1",
    // Only one user id exists in the sandbox: unpacking an archive must not try to give files to another.
    TAR_OPTIONS: "--no-same-owner",
    ...certificates?.env,
    ...given,
  };
}

/** Generated files, by their path in the sandbox. `/etc/hosts` is not here: it changes with the intercepts. */
export function sandboxFiles(
  certificates: Certificates | undefined,
  certificatesPath: string,
): Record<string, string> {
  const registries = hostRegistries();
  const files: Record<string, string> = {
    "/etc/passwd":
      "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "/etc/resolv.conf":
      "# Names are resolved by the proxy. Nothing listens here, so a direct query fails at once.\nnameserver 127.0.0.1\n",
    "/etc/hostname": `${hostname}\n`,
    "/etc/profile": `export PATH="${path}"\n[ -n "$BASH" ] && [ -f ~/.bashrc ] && . ~/.bashrc\n`,
    "/etc/pip.conf": `[global]\nproxy = ${proxyURL}\n${registries.pip === undefined ? "" : `index-url = ${registries.pip}\n`}`,
    "/etc/gitconfig": `[http]\n\tproxy = ${proxyURL}\n[init]\n\tdefaultBranch = main\n`,
    "/opt/sandbox-runtime/etc/npmrc":
      `proxy=${proxyURL}\nhttps-proxy=${proxyURL}\nfund=false\naudit=false\n` +
      (registries.npm === undefined ? "" : `registry=${registries.npm}\n`),
  };
  if (certificates !== undefined) files[certificatesPath] = certificates.pem;
  return files;
}

/** `/etc/hosts`, with the intercepted hosts that have no wildcard where the runtime forwards port 80. */
export function hostsFile(intercepted: string[]): string {
  const names = intercepted.filter((host) => /^[a-z0-9.-]+$/.test(host) && /[a-z]/.test(host));
  const lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", `127.0.0.1 ${hostname}`];
  return [...lines, ...names.map((name) => `${INTERNAL_ADDRESS} ${name}`)].join("\n") + "\n";
}
