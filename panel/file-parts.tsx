/** Components that the tree of files and an open file share. */
import { PlainButton } from "./controls.tsx";
import { makeVisible } from "../src/shared/shown.ts";
import { downloadURL } from "./file.ts";
import { host } from "./host.ts";
import { useOffered } from "./offered.ts";

export function Name({ name }: { name: string }) {
  return <bdi>{makeVisible(name)}</bdi>;
}

export function Download({
  sandbox,
  path,
  label,
  showFailure,
}: {
  sandbox: string;
  path: string;
  label: string;
  showFailure: (error: unknown) => void;
}) {
  const isOffered = useOffered();
  if (!isOffered("file_link")) return null;
  const fetchIt = async () => {
    try {
      await host().download(await downloadURL(sandbox, path));
    } catch (error) {
      showFailure(error);
    }
  };
  return (
    <PlainButton onClick={fetchIt} aria-label={`${label}: ${path}`}>
      {label}
    </PlainButton>
  );
}
