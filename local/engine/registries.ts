/** The host's configured package indexes, for pip and npm in a sandbox: addresses without credentials. */
import { homedir } from "node:os";
import { join } from "node:path";
import { readText } from "./host-files.ts";

export interface Registries {
  npm: string | undefined;
  pip: string | undefined;
  pipExtra: string[];
  /** pip's `trusted-host`: hosts that pip may use without TLS. */
  pipTrusted: string[];
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The environment takes precedence over files, as in pip and npm. Loopback addresses are left out: in a sandbox they mean the
 * sandbox.
 */
export function hostRegistries(env: Environment = process.env): Registries {
  const pip = pipSettings(env);
  const trusted = (env.PIP_TRUSTED_HOST ?? pip["trusted-host"] ?? "").split(/\s+/);
  const extra = (env.PIP_EXTRA_INDEX_URL ?? pip["extra-index-url"] ?? "").split(/\s+/).map(usableAddress);
  return {
    npm: usableAddress(env.npm_config_registry ?? npmSetting(env, "registry")),
    pip: usableAddress(env.PIP_INDEX_URL ?? pip["index-url"]),
    pipExtra: extra.filter((address) => address !== undefined),
    pipTrusted: trusted.filter((host) => /^[\w.:[\]-]+$/.test(host)),
  };
}

export function registryAddresses({ npm, pip, pipExtra }: Registries): Set<string> {
  const addresses = [npm, pip, ...pipExtra].filter((address) => address !== undefined);
  return new Set(
    addresses.map((address) => {
      const { hostname, port, protocol } = new URL(address);
      return `${hostname.replace(/^\[|\]$/g, "").replace(/\.$/, "")}:${port || (protocol === "https:" ? 443 : 80)}`;
    }),
  );
}

export function npmSetting(env: Environment, name: "registry" | "cafile"): string | undefined {
  const file = env.npm_config_userconfig ?? env.NPM_CONFIG_USERCONFIG ?? join(homedir(), ".npmrc");
  const lines = readText(file).split("\n");
  const values = lines.map((line) => /^\s*(\w+)\s*=\s*"?([^"\s]+)"?\s*$/.exec(line));
  return values.findLast((match) => match?.[1] === name)?.[2];
}

function pipSettings(env: Environment): Record<string, string> {
  const home = env.HOME ?? homedir();
  // In pip's order: system, user, virtual environment, named file.
  const files = [
    "/etc/xdg/pip/pip.conf",
    "/etc/pip.conf",
    join(home, ".pip/pip.conf"),
    join(env.XDG_CONFIG_HOME ?? join(home, ".config"), "pip/pip.conf"),
    ...(env.VIRTUAL_ENV === undefined ? [] : [join(env.VIRTUAL_ENV, "pip.conf")]),
    ...(env.PIP_CONFIG_FILE === undefined ? [] : [env.PIP_CONFIG_FILE]),
  ];
  const global: Record<string, string> = {};
  const install: Record<string, string> = {};
  for (const file of env.PIP_CONFIG_FILE === "/dev/null" ? [] : files) {
    let section: Record<string, string> | undefined;
    let name = "";
    for (const line of readText(file).split("\n")) {
      const [, heading] = /^\[(\w+)\]/.exec(line) ?? [];
      const [, key, value = ""] = /^([\w-]+)\s*[=:]\s*(.*)$/.exec(line) ?? [];
      if (heading !== undefined) section = { global, install }[heading];
      else if (key !== undefined && section !== undefined) {
        name = key.toLowerCase().replaceAll("_", "-");
        section[name] = value.trim();
      } else if (/^\s+[^\s#;]/.test(line) && section?.[name] !== undefined) {
        // Indented lines continue a value.
        section[name] += ` ${line.trim()}`;
      }
    }
  }
  return { ...global, ...install };
}

/** The address without credentials; undefined if a sandbox cannot use it. */
function usableAddress(address: string | undefined): string | undefined {
  if (address === undefined || !URL.canParse(address)) return undefined;
  const url = new URL(address);
  if (url.protocol !== "http:" && url.protocol !== "https:") return undefined;
  if (/^(localhost|.*\.localhost|127\..*|0\.0\.0\.0|\[::1?\])$/.test(url.hostname)) return undefined;
  url.username = "";
  url.password = "";
  url.search = "";
  url.hash = "";
  return url.href;
}
