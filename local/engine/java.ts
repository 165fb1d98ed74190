/** The files of each Java that this machine has. */
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";

/** Where systems put them. */
const homes = "/usr/lib/jvm";

/** The files of a name below each home, without those that several share. Debian's are links to /etc. */
function filesOfEach(name: string): string[] {
  if (!existsSync(homes)) return [];
  const paths = readdirSync(homes).map((home) => `${homes}/${home}/${name}`);
  return [...new Set(paths.filter((path) => existsSync(path)).map((path) => realpathSync(path)))];
}

/** Where Java keeps the authorities that it trusts. */
export function javaKeyStores(): string[] {
  return filesOfEach("lib/security/cacerts");
}

/** Java's settings of the network with a proxy, by their paths: it reads no variable for that. */
export function javaNetworkSettings(proxy: URL, direct: readonly string[]): Record<string, string> {
  const lines = ["http", "https"].flatMap((scheme) => [
    `${scheme}.proxyHost=${proxy.hostname}`,
    `${scheme}.proxyPort=${proxy.port}`,
  ]);
  const exempt = direct.filter((host) => !host.startsWith(":")).join("|");
  const added = [...lines, `http.nonProxyHosts=${exempt}`, ""].join("\n");
  return Object.fromEntries(
    filesOfEach("conf/net.properties").map((path) => [path, `${readFileSync(path, "utf8")}\n${added}`]),
  );
}
