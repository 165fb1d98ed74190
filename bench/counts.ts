/** Numbers of the operations that Cloudflare bills. */
export interface Counts {
  worker_requests: number;
  durable_object_requests: number;
  rows_read: number;
  rows_written: number;
  r2_class_a: number;
  r2_class_b: number;
}
