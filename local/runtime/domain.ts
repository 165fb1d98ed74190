import { RpcTarget } from "capnweb";
import { type BackupAPI } from "./backup.ts";
import { type Files } from "./files.ts";
import { type InterpreterAPI } from "./interpreter.ts";
import { type Processes } from "./processes.ts";
import { type Sessions } from "./sessions.ts";
import { type WatchAPI } from "./watch.ts";

/** What the control API is made of. */
export interface Services {
  sessions: Sessions;
  processes: Processes;
  files: Files;
  interpreter: InterpreterAPI;
  watch: WatchAPI;
  backup: BackupAPI;
}

/** One domain of the control API. Methods can be called from outside; a target's own properties cannot be reached. */
export class Domain extends RpcTarget {
  protected readonly services: Services;

  constructor(services: Services) {
    super();
    this.services = services;
  }
}
