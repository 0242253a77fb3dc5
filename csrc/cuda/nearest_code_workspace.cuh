#pragma once

#include "nearest_code_elements.cuh"

// The memory in which the kernels of a search hand on what they find.

namespace cbtalk::nearest_code {

struct Workspace {
  unsigned long long* table;  // (H, table_slots(K)) zeros at first: see nearest_code_table.h
  float* norms;               // (H, padded_codes(K)) zeros at first: |e|^2, NaN for a code that is not to win
  float* longest;             // (H,) zeros at first: the largest of them
  unsigned* blocks_done;      // () zero at first
  double* partials;           // (H * winner_blocks(N),) sums of distances
  float* packed;              // (H, panels(K)) of panel_floats(D)
};

inline Workspace workspace_of(const NearestCodeCudaParams& p) {
  char* place = static_cast<char*>(p.workspace);
  Workspace workspace;
  workspace.table = reinterpret_cast<unsigned long long*>(place);
  workspace.norms = reinterpret_cast<float*>(workspace.table + p.H * table_slots(p.K));
  workspace.longest = workspace.norms + p.H * padded_codes(p.K);
  workspace.blocks_done = reinterpret_cast<unsigned*>(workspace.longest + p.H);
  workspace.partials = reinterpret_cast<double*>(place + zero_bytes(p.H, p.K));
  workspace.packed = reinterpret_cast<float*>(place + zero_bytes(p.H, p.K) + partial_bytes(p.H, p.N));
  return workspace;
}

__device__ inline Workspace at_head(Workspace workspace, const NearestCodeCudaParams& p, int64_t head) {
  workspace.table += head * table_slots(p.K);
  workspace.norms += head * padded_codes(p.K);
  workspace.longest += head;
  workspace.packed += head * panels(p.K) * panel_floats(p.D);
  return workspace;
}

}  // namespace cbtalk::nearest_code
