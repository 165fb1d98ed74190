import { RpcTarget } from "capnweb";
export class BackupAPI extends RpcTarget {}
