/** Files of the Java installations of this machine. */
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";

const homes = "/usr/lib/jvm";

/** The paths of a file in all Java homes. A file in /etc to which several of Debian's Java versions link is listed once. */
export function javaFiles(name: string): string[] {
  if (!existsSync(homes)) return [];
  const paths = readdirSync(homes).map((home) => `${homes}/${home}/${name}`);
  return [...new Set(paths.filter((path) => existsSync(path)).map((path) => realpathSync(path)))];
}

/** Java's network settings with the proxy, by path. They are files, because Java reads no variables for a proxy. */
export function javaNetworkSettings(proxy: URL, direct: readonly string[]): Record<string, string> {
  const lines = ["http", "https"].flatMap((scheme) => [
    `${scheme}.proxyHost=${proxy.hostname}`,
    `${scheme}.proxyPort=${proxy.port}`,
  ]);
  const exempt = direct.filter((host) => !host.startsWith(":")).join("|");
  const added = [...lines, `http.nonProxyHosts=${exempt}`, ""].join("\n");
  return Object.fromEntries(
    javaFiles("conf/net.properties").map((path) => [path, `${readFileSync(path, "utf8")}\n${added}`]),
  );
}
