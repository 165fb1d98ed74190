import { RpcTarget } from "capnweb";
export class WatchAPI extends RpcTarget {}
