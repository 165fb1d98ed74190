/** How often what Cloudflare bills by the piece was used. */
export interface Counts {
  worker_requests: number;
  durable_object_requests: number;
  rows_read: number;
  rows_written: number;
  r2_class_a: number;
  r2_class_b: number;
}
