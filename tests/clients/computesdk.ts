/** ComputeSDK, for the tests outside this directory. */
export { compute } from "computesdk";
