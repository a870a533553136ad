// The kernels of primitives.cpp, for those who call them.

#pragma once

#include <cstdint>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace cbam {

using Index = std::int64_t;

// Threads that a caller lends the kernels, in place of OpenMP's.
struct Threads {
  // unit(work, number) for all numbers below `units`, in any order, on any thread; returns when all
  // are done.
  virtual void run(Index units, void (*unit)(const void* work, Index number),
                   const void* work) const = 0;
};

// Those of the kernels that this thread calls; null where they are to take OpenMP's.
extern thread_local const Threads* lent_threads;

}  // namespace cbam

// dtype: 0 float, 1 double, 2 bfloat16, of the maps. Null stands for a gate that is not there, and
// for a gradient that is not known or not wanted. d_x may be d_y. Functions return 0, or 1 where
// memory was lacking, and then nothing that they wrote counts.

EXPORT int cbam_pool_rows(int dtype, int threads, cbam::Index samples, cbam::Index rows,
                          cbam::Index columns, const void* x, const void* gate, void* avg,
                          void* max, void* ties);

EXPORT int cbam_pool_columns(int dtype, int threads, cbam::Index samples, cbam::Index rows,
                             cbam::Index columns, const void* x, const void* gate, void* avg,
                             void* max, void* ties);

EXPORT int cbam_pool_rows_backward(int dtype, int threads, cbam::Index samples, cbam::Index rows,
                                   cbam::Index columns, const void* x, const void* gate,
                                   const void* max, const void* ties, const void* d_avg,
                                   const void* d_max, const void* d_y, void* d_x, void* d_gate);

EXPORT int cbam_pool_columns_backward(int dtype, int threads, cbam::Index samples,
                                      cbam::Index rows, cbam::Index columns, const void* x,
                                      const void* gate, const void* max, const void* ties,
                                      const void* d_avg, const void* d_max, const void* d_y,
                                      void* d_x, void* d_gate);

EXPORT int cbam_scale(int dtype, int threads, cbam::Index samples, cbam::Index rows,
                      cbam::Index columns, const void* x, const void* row_gate,
                      const void* column_gate, int residual, void* y);

EXPORT int cbam_scale_backward(int dtype, int threads, cbam::Index samples, cbam::Index rows,
                               cbam::Index columns, const void* x, const void* row_gate,
                               const void* column_gate, int residual, const void* d_y, void* d_x,
                               void* d_rows, void* d_columns);
