/** A sandbox's generated files in /etc and its variables. In production they are part of the image. */
import { INTERNAL_ADDRESS } from "../runtime/tcp.ts";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { javaNetworkSettings } from "./java.ts";
import { repository } from "./own-files.ts";
import { sandboxEnvironmentDirectory } from "./python.ts";
import type { Registries } from "./registries.ts";

const proxyURL = "http://127.0.0.1:3128";
export const hostname = "sandbox";
/** The coding agent's directory. User-installed programs precede it in PATH, as in the image. */
export const agentDirectory = "/opt/sandbox-runtime/agents";
export const fetchedAgentsDirectory = "/opt/sandbox-runtime/fetched-agents";

const path = [
  "/opt/sandbox-runtime/bin",
  "/root/.local/bin",
  "/root/.npm-global/bin",
  `${sandboxEnvironmentDirectory}/bin`,
  agentDirectory,
  fetchedAgentsDirectory,
  "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
].join(":");

/**
 * Addresses that need no proxy. The list has several forms of an IPv6 address, and single addresses because some programs ignore
 * ranges (Node, Python's urllib).
 */
const direct = [
  "localhost",
  "::1",
  "[::1]",
  "::",
  "[::]",
  "0.0.0.0",
  "127.0.1.1",
  ...Array.from({ length: 9 }, (_, index) => `127.0.0.${index + 1}`),
  hostname,
];

const imageEnvironment: Record<string, string> = Object.fromEntries(
  [...readFileSync(join(repository, "container/environment"), "utf8").matchAll(/^(\w+)=(.*)$/gm)].map(
    ([, name = "", value = ""]) => [name, value],
  ),
);

export function sandboxEnvironment(variables: Record<string, string>) {
  const noProxy = [...direct, "127.0.0.0/8"].join(",");
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
    // Node's fetch ignores proxy variables by default.
    NODE_USE_ENV_PROXY: "1",
    NODE_OPTIONS: "--require /opt/sandbox-runtime/runtime/fetch-reason.cjs",
    npm_config_prefix: "/root/.npm-global",
    npm_config_globalconfig: "/opt/sandbox-runtime/etc/npmrc",
    npm_config_update_notifier: "false",
    VIRTUAL_ENV: sandboxEnvironmentDirectory,
    PIP_BREAK_SYSTEM_PACKAGES: "1",
    PIP_ROOT_USER_ACTION: "ignore",
    PIP_DISABLE_PIP_VERSION_CHECK: "1",
    ...imageEnvironment,
    ...variables,
  };
}

export function sandboxFiles(
  trusted: Record<string, string | Buffer>,
  registries: Registries,
): Record<string, string | Buffer> {
  const files: Record<string, string | Buffer> = {
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    // Root can become another user with su or runuser, without a password. Other users cannot.
    "/etc/pam.d/other": ["auth", "account", "password", "session"]
      .map((kind) => `${kind} required pam_permit.so\n`)
      .join(""),
    "/etc/resolv.conf":
      "# The proxy resolves names. No name server listens here, so a direct query fails at once.\nnameserver 127.0.0.1\n",
    "/etc/hostname": `${hostname}\n`,
    "/etc/profile": `export PATH="${path}"\n[ -n "$BASH" ] && [ -f ~/.bashrc ] && . ~/.bashrc\n`,
    "/etc/pip.conf": pipConfiguration(registries),
    "/etc/gitconfig": gitConfiguration(),
    "/opt/sandbox-runtime/etc/npmrc":
      `proxy=${proxyURL}\nhttps-proxy=${proxyURL}\nfund=false\naudit=false\n` +
      (registries.npm === undefined ? "" : `registry=${registries.npm}\n`),
  };
  for (const program of packageManagers) if (existsSync(program)) files[program] = noPackages;
  Object.assign(files, javaNetworkSettings(new URL(proxyURL), ["127.*", ...direct]));
  if (existsSync("/usr/bin/dpkg")) files["/opt/sandbox-runtime/bin/dpkg"] = dpkg;
  files["/opt/sandbox-runtime/bin/sudo"] = sudo;
  return Object.assign(files, trusted);
}

/** The hosts whose SSH addresses git reads as HTTPS, because no SSH leads out of a sandbox. git cannot do this for all hosts. */
const GIT_HOSTS = ["github.com", "gitlab.com", "bitbucket.org", "codeberg.org"];

/** What git prints for the SSH addresses of all other hosts. A person who tunnels SSH sets another command. */
const NO_SSH = "No SSH leads out of this sandbox. Use the HTTPS address of the repository: https://HOST/PATH";

function gitConfiguration(): string {
  const hosts = GIT_HOSTS.map((host) => `[url "https://${host}/"]\n\tinsteadOf = git@${host}:\n`);
  return [
    `[http]\n\tproxy = ${proxyURL}\n[init]\n\tdefaultBranch = main\n`,
    // A commit needs the name of its author. `git config --global` and a repository's own settings override this name.
    "[user]\n\tname = Sandbox\n\temail = sandbox@localhost\n",
    // Archives can have files of other owners. All files of a sandbox are the same user's.
    "[safe]\n\tdirectory = *\n",
    '[url "https://"]\n\tinsteadOf = ssh://git@\n',
    ...hosts,
    `[core]\n\tsshCommand = "echo '${NO_SSH}' >&2; false"\n`,
  ].join("");
}

/** Users that Debian programs expect. Programs can add more with useradd, because the files are writable. */
const users: [name: string, id: number, home: string][] = [
  ["daemon", 1, "/usr/sbin"],
  ["bin", 2, "/bin"],
  ["sys", 3, "/dev"],
  ["games", 5, "/usr/games"],
  ["man", 6, "/var/cache/man"],
  ["mail", 8, "/var/mail"],
  ["www-data", 33, "/var/www"],
  ["backup", 34, "/var/backups"],
  ["nobody", 65_534, "/nonexistent"],
];

const groups: [name: string, id: number][] = [
  ["adm", 4],
  ["tty", 5],
  ["staff", 50],
  ["games", 60],
  ["users", 100],
  ["nogroup", 65_534],
];

export const accountFiles = {
  "/etc/passwd": [
    "root:x:0:0:root:/root:/bin/bash",
    ...users.map(([name, id, home]) => {
      const group = name === "games" ? 60 : id;
      return `${name}:x:${id}:${group}:${name}:${home}:/usr/sbin/nologin`;
    }),
    "",
  ].join("\n"),
  "/etc/group": [
    ["root", 0] as const,
    ...users.filter(([name]) => !["games", "nobody"].includes(name)),
    ...groups,
  ]
    .map(([name, id]) => `${name}:x:${id}:\n`)
    .join(""),
};

function pipConfiguration({ pip, pipExtra, pipTrusted }: Registries): string {
  const list = (name: string, values: string[]) =>
    values.length === 0 ? [] : [`${name} =`, ...values.map((value) => `    ${value}`)];
  const lines = ["[global]", `proxy = ${proxyURL}`];
  if (pip !== undefined) lines.push(`index-url = ${pip}`);
  lines.push(...list("extra-index-url", pipExtra), ...list("trusted-host", pipTrusted));
  return lines.join("\n") + "\n";
}

/** Programs of the host that are replaced, because they would fail with misleading messages. */
const packageManagers = ["apt", "apt-get", "aptitude", "dnf", "yum", "zypper", "pacman", "snap"].map(
  (name) => `/usr/bin/${name}`,
);

const noPackages = `#!/bin/sh
cat >&2 <<END
\${0##*/}: packages of the system cannot be installed in a local sandbox. Its /usr is the read-only /usr of the machine on
which the server runs. You can use pip install and npm install, and unpack programs below /root or /workspace. If you need a
package of the system, ask the operator of the server to install it on that machine. Sandboxes that start later will have it.
END
exit 100
`;

/** Replaces the machine's dpkg. Queries, and operations that change nothing, still work. */
const dpkg = `#!/bin/bash
for word; do
  case $word in
    -i | --install | --unpack | --configure | -r | --remove | -P | --purge) ;;
    *) continue ;;
  esac
${noPackages.slice(noPackages.indexOf("\n") + 1)}done
exec /usr/bin/dpkg "$@"
`;

/** Replaces the machine's sudo, which cannot work in a sandbox. Scripts call sudo even if root runs them. */
const sudo = `#!/bin/bash
while [[ \${1-} == -* ]]; do
  case $1 in
    -u | -g | --user | --group)
      case $1 in -g | --group) ;; *) user=\${2-} ;; esac
      shift 2 || exit ;;
    --) shift; break ;;
    *) shift ;;
  esac
done
[[ $# -ne 0 ]] || exit 0
case \${user-root} in root | 0 | "#0") exec env -- "$@" ;; esac
[[ $(wc -l </proc/self/uid_map) -eq 1 ]] || exec runuser -u "$user" -- env -- "$@"
echo "sudo: everything in this sandbox runs as root, because it has no other users" >&2
exit 1
`;

/** The content of /etc/hosts. Intercepted hosts without wildcards get the address where the egress proxy listens on port 80. */
export function hostsFile(intercepted: string[]): string {
  const names = intercepted.filter((host) => /^[a-z0-9.-]+$/.test(host) && /[a-z]/.test(host));
  const lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", `127.0.0.1 ${hostname}`];
  return [...lines, ...names.map((name) => `${INTERNAL_ADDRESS} ${name}`)].join("\n") + "\n";
}
