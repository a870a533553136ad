// The three memory-bound primitives of attention and their gradients, on CPUs.
//
// A map x is N samples of A rows and B columns, contiguous. Where channels come first the rows are
// channels and the columns positions; where they come last it is the other way round, so each
// function serves both layouts:
//
//     pool_rows      x (N, A, B), gate (N, B)  ->  avg, max, ties (N, A)  of  gate * x
//     pool_columns   x (N, A, B), gate (N, A)  ->  avg, max, ties (N, B)  of  gate * x
//     scale          x, rows (N, A), columns (N, B)  ->  columns * rows * x (+ x)
//
// Maps are float, double or bfloat16; gates, descriptors and all arithmetic are float, or double for
// maps of double. Gradients read x again instead of what was made of it: only x and the small maps
// have to be kept. The gradient of a maximum is split evenly among its ties, of which `ties` is the
// number.
//
// A unit of work is a few rows of one sample, as many as the shape says, so memory is read from end
// to end; sums over units are added in their order. So the bits do not depend on the number of
// threads. There is no fused multiply-add (see setup.py), so nor do they depend on the processor,
// and what equalled the maximum equals it in the backward pass.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>

#include "primitives.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#define INLINE inline __attribute__((always_inline))

// The fastest of these that the processor has is chosen when the library is loaded.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(CBAM_ONE_TARGET)
#define MULTIVERSIONED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MULTIVERSIONED
#endif

namespace {

using cbam::Index;

struct bfloat16 {
  std::uint16_t bits;
};

template <class Stored>
struct Computed {
  using type = Stored;
};
template <>
struct Computed<bfloat16> {
  using type = float;
};

// ---------------------------------------------------------------------------- numbers and vectors

// Loops run over vectors of 64 bytes, then over the numbers that are left; `Value` is either.
template <class T>
struct Vector {
  static constexpr Index size = 64 / sizeof(T);
  typedef T type __attribute__((vector_size(64)));
};

// The bits of a vector of bfloat16, and of the floats that they stand for.
typedef std::uint16_t Halves __attribute__((vector_size(32)));
typedef std::uint32_t Words __attribute__((vector_size(64)));

template <class Value, class T>
INLINE Value load(const T* from) {
  Value value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class Value>
INLINE Value load(const bfloat16* from) {
  Value value;
  if constexpr (sizeof(Value) == sizeof(float)) {
    const std::uint32_t word = std::uint32_t(from->bits) << 16;
    std::memcpy(&value, &word, sizeof value);
  } else {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    const Words words = __builtin_convertvector(halves, Words) << 16;
    std::memcpy(&value, &words, sizeof value);
  }
  return value;
}

template <class Value, class T>
INLINE void store(T* to, Value value) {
  std::memcpy(to, &value, sizeof value);
}

// Rounds to the nearest, and to even between two; a NaN stays one.
template <class Value>
INLINE void store(bfloat16* to, Value value) {
  if constexpr (sizeof(Value) == sizeof(float)) {
    std::uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    to->bits = value == value ? (word + 0x7fffu + ((word >> 16) & 1u)) >> 16 : 0x7fc0u;
  } else {
    Words words;
    std::memcpy(&words, &value, sizeof words);
    Words rounded = (words + 0x7fffu + ((words >> 16) & 1u)) >> 16;
    Words quiet = Words{} + 0x7fc0u;
    Halves halves = __builtin_convertvector((value == value) ? rounded : quiet, Halves);
    std::memcpy(to, &halves, sizeof halves);
  }
}

// The lanes of a vector made one number, by halves.
template <class T, class Join>
INLINE T fold(typename Vector<T>::type vector, Join join) {
  T lanes[Vector<T>::size];
  std::memcpy(lanes, &vector, sizeof lanes);
  for (Index width = Vector<T>::size / 2; width; width /= 2)
    for (Index lane = 0; lane < width; ++lane) lanes[lane] = join(lanes[lane], lanes[lane + width]);
  return lanes[0];
}

template <class T>
INLINE T sum_of(typename Vector<T>::type vector) {
  return fold<T>(vector, [](T a, T b) { return a + b; });
}

// The larger of two. A NaN is never larger, see `is_any_nan`.
template <class Value>
INLINE Value larger(Value value, Value most) {
  return value > most ? value : most;
}

// 1 where they are equal and 0 elsewhere, to multiply with: 0 * infinity is NaN, as it is for a mask.
template <class Value>
INLINE Value equal(Value a, Value b) {
  return (a == b) ? Value{} + 1 : Value{};
}

// body(Value{}, j) for all j of [begin, end), in vectors as far as they go.
template <class T, class Body>
INLINE void for_columns(Index begin, Index end, Body body) {
  Index j = begin;
  for (; j + Vector<T>::size <= end; j += Vector<T>::size) body(typename Vector<T>::type{}, j);
  for (; j < end; ++j) body(T{}, j);
}

// ------------------------------------------------------------------------------- units of work

struct Shape {
  Index samples, rows, columns;

  // Enough rows to make the sums of units small beside the map; of short rows some more.
  Index rows_each() const {
    return std::min(rows, std::max(Index(64), (16384 + columns - 1) / columns));
  }
  Index units_each() const { return (rows + rows_each() - 1) / rows_each(); }
  Index units() const { return samples * units_each(); }
};

// The rows of a unit.
struct Rows {
  Index sample, begin, end;

  Rows(const Shape& shape, Index unit) {
    sample = unit / shape.units_each();
    begin = unit % shape.units_each() * shape.rows_each();
    end = std::min(shape.rows, begin + shape.rows_each());
  }
};

// What a function was called with. Those that it does not have, and gradients that nobody asked
// for, are null.
struct Call {
  Shape shape;
  // The map and its gates, (N, A) and (N, B).
  const void *x = nullptr, *rows = nullptr, *columns = nullptr;
  // What is made of them.
  void *avg = nullptr, *max = nullptr, *ties = nullptr, *y = nullptr;
  // Where pool_columns has what each unit found.
  void *parts = nullptr;
  // What was made of them, and the gradients that are known, `d_y` also of the x handed on.
  const void *most = nullptr, *tied = nullptr, *d_avg = nullptr, *d_max = nullptr, *d_y = nullptr;
  // The gradients that are asked for.
  void *d_x = nullptr, *d_rows = nullptr, *d_columns = nullptr;
  bool residual = false;
};

template <class T>
INLINE const T* at(const void* array, Index offset) {
  return array ? static_cast<const T*>(array) + offset : nullptr;
}
template <class T>
INLINE T* at(void* array, Index offset) {
  return array ? static_cast<T*>(array) + offset : nullptr;
}

// ------------------------------------------------------------------------------------- pooling

template <class Stored, class T>
INLINE bool is_any_nan(const Stored* x, Index step, const T* gate, Index count) {
  for (Index k = 0; k < count; ++k) {
    T value = load<T>(x + k * step);
    if (gate) value = gate[k] * value;
    if (value != value) return true;
  }
  return false;
}

// A sum so far, the largest of its numbers, and how many of them are that.
template <class Value>
struct Pool {
  Value total = {}, most = Value{} - std::numeric_limits<float>::infinity(), ties = {};

  INLINE void take(Value value) {
    total += value;
    ties = value > most ? Value{} + 1 : ties + equal(value, most);
    most = larger(value, most);
  }
  INLINE void take(Value other, Value other_most, Value other_ties) {
    total += other;
    ties = other_most > most ? other_ties : ties + equal(other_most, most) * other_ties;
    most = larger(other_most, most);
  }
};

// Put down what was pooled of `count` numbers, `step` apart. Of numbers of which any is NaN the
// maximum is NaN, and no number is equal to it; their sum is NaN then, and of few others.
template <class Stored, class T>
INLINE void finish(const Call& call, Pool<T> pool, Index place, const Stored* x, Index step,
                   const T* gate, Index count) {
  if (pool.total != pool.total && is_any_nan(x, step, gate, count)) {
    pool.most = std::numeric_limits<T>::quiet_NaN();
    pool.ties = 0;
  }
  *at<T>(call.avg, place) = pool.total / T(count);
  *at<T>(call.max, place) = pool.most;
  *at<T>(call.ties, place) = pool.ties;
}

template <class Stored>
INLINE void pool_rows(const Call& call, Index unit) {
  using T = typename Computed<Stored>::type;
  using V = typename Vector<T>::type;
  constexpr Index run = 64 * Vector<T>::size;
  const Shape& shape = call.shape;
  const Rows rows(shape, unit);
  const T* gate = at<T>(call.columns, rows.sample * shape.columns);
  for (Index i = rows.begin; i < rows.end; ++i) {
    const Index row = rows.sample * shape.rows + i;
    const Stored* x = at<Stored>(call.x, row * shape.columns);
    Pool<V> lanes;
    Pool<T> pool;
    // A long sum is a sum of short ones, so its rounding stays small.
    for (Index begin = 0; begin < shape.columns; begin += run) {
      const Index end = std::min(shape.columns, begin + run);
      lanes.total = V{};
      for_columns<T>(begin, end, [&](auto zero, Index j) __attribute__((always_inline)) {
        using Value = decltype(zero);
        Value value = load<Value>(x + j);
        if (gate) value = load<Value>(gate + j) * value;
        if constexpr (sizeof(Value) == sizeof(T))
          pool.take(value);
        else
          lanes.take(value);
      });
      pool.total += sum_of<T>(lanes.total);
    }
    const T most = fold<T>(lanes.most, [](T a, T b) { return larger(a, b); });
    pool.take(T(0), most, sum_of<T>(equal(lanes.most, V{} + most) * lanes.ties));
    finish<Stored>(call, pool, row, x, 1, gate, shape.columns);
  }
}

template <class Stored>
INLINE void pool_columns(const Call& call, Index unit) {
  using T = typename Computed<Stored>::type;
  const Shape& shape = call.shape;
  const Rows rows(shape, unit);
  T* total = at<T>(call.parts, 3 * unit * shape.columns);
  T *most = total + shape.columns, *ties = most + shape.columns;
  const T* gate = at<T>(call.rows, rows.sample * shape.rows);
  std::fill_n(total, shape.columns, T(0));
  std::fill_n(most, shape.columns, -std::numeric_limits<T>::infinity());
  std::fill_n(ties, shape.columns, T(0));
  // Four rows at a time, for one time that what is found so far is read and written.
  const auto take = [&](Index i, auto count) __attribute__((always_inline)) {
    const Stored* x = at<Stored>(call.x, (rows.sample * shape.rows + i) * shape.columns);
    for_columns<T>(0, shape.columns, [&](auto zero, Index j) __attribute__((always_inline)) {
      using Value = decltype(zero);
      Pool<Value> pool{load<Value>(total + j), load<Value>(most + j), load<Value>(ties + j)};
      for (Index k = 0; k < count; ++k) {
        const T factor = gate ? gate[i + k] : T(1);
        pool.take(factor * load<Value>(x + k * shape.columns + j));
      }
      store(total + j, pool.total);
      store(most + j, pool.most);
      store(ties + j, pool.ties);
    });
  };
  Index i = rows.begin;
  for (; i + 4 <= rows.end; i += 4) take(i, std::integral_constant<Index, 4>());
  for (; i < rows.end; ++i) take(i, std::integral_constant<Index, 1>());
}

// Of one sample, what its units found.
template <class Stored>
INLINE void join_columns(const Call& call, Index sample) {
  using T = typename Computed<Stored>::type;
  const Shape& shape = call.shape;
  const T* gate = at<T>(call.rows, sample * shape.rows);
  for (Index j = 0; j < shape.columns; ++j) {
    Pool<T> pool;
    for (Index unit = 0; unit < shape.units_each(); ++unit) {
      const T* part = at<T>(call.parts, 3 * (sample * shape.units_each() + unit) * shape.columns);
      pool.take(part[j], part[shape.columns + j], part[2 * shape.columns + j]);
    }
    const Stored* x = at<Stored>(call.x, sample * shape.rows * shape.columns + j);
    finish<Stored>(call, pool, sample * shape.columns + j, x, shape.columns, gate, shape.rows);
  }
}

// The gradients below are, with v = gate * x and the ties of its maximum,
//
//     dv = d_avg / count + (v == max) * d_max / ties,   dx = d_y + gate * dv,   dgate = sum x * dv.

template <class Stored>
INLINE void pool_rows_backward(const Call& call, Index unit) {
  using T = typename Computed<Stored>::type;
  const Shape& shape = call.shape;
  const Rows rows(shape, unit);
  const T* gate = at<T>(call.columns, rows.sample * shape.columns);
  T* d_gate = at<T>(call.d_columns, unit * shape.columns);
  if (d_gate) std::fill_n(d_gate, shape.columns, T(0));
  for (Index i = rows.begin; i < rows.end; ++i) {
    const Index row = rows.sample * shape.rows + i, offset = row * shape.columns;
    const Stored *x = at<Stored>(call.x, offset), *d_y = at<Stored>(call.d_y, offset);
    Stored* d_x = at<Stored>(call.d_x, offset);
    const T most = *at<T>(call.most, row);
    const T mean = call.d_avg ? *at<T>(call.d_avg, row) / T(shape.columns) : T(0);
    const T share = call.d_max ? *at<T>(call.d_max, row) / *at<T>(call.tied, row) : T(0);
    for_columns<T>(0, shape.columns, [&](auto zero, Index j) __attribute__((always_inline)) {
      using Value = decltype(zero);
      const Value value = load<Value>(x + j);
      const Value factor = gate ? load<Value>(gate + j) : Value{} + 1;
      const Value d_value = mean + equal(factor * value, Value{} + most) * share;
      if (d_gate) store(d_gate + j, load<Value>(d_gate + j) + value * d_value);
      if (!d_x) return;
      Value d = factor * d_value;
      if (d_y) d += load<Value>(d_y + j);
      store(d_x + j, d);
    });
  }
}

template <class Stored>
INLINE void pool_columns_backward(const Call& call, Index unit) {
  using T = typename Computed<Stored>::type;
  const Shape& shape = call.shape;
  const Rows rows(shape, unit);
  const T* gate = at<T>(call.rows, rows.sample * shape.rows);
  T* d_gate = at<T>(call.d_rows, rows.sample * shape.rows);
  const T* most = at<T>(call.most, rows.sample * shape.columns);
  // What every row has of the gradients of the descriptors.
  T* mean = at<T>(call.parts, 2 * unit * shape.columns);
  T* share = mean + shape.columns;
  const T* d_avg = at<T>(call.d_avg, rows.sample * shape.columns);
  const T* d_max = at<T>(call.d_max, rows.sample * shape.columns);
  const T* tied = at<T>(call.tied, rows.sample * shape.columns);
  for (Index j = 0; j < shape.columns; ++j) {
    mean[j] = d_avg ? d_avg[j] / T(shape.rows) : T(0);
    share[j] = d_max ? d_max[j] / tied[j] : T(0);
  }
  for (Index i = rows.begin; i < rows.end; ++i) {
    const Index offset = (rows.sample * shape.rows + i) * shape.columns;
    const Stored *x = at<Stored>(call.x, offset), *d_y = at<Stored>(call.d_y, offset);
    Stored* d_x = at<Stored>(call.d_x, offset);
    const T factor = gate ? gate[i] : T(1);
    typename Vector<T>::type sum = {};
    T rest = 0;
    for_columns<T>(0, shape.columns, [&](auto zero, Index j) __attribute__((always_inline)) {
      using Value = decltype(zero);
      const Value value = load<Value>(x + j);
      const Value d_value = load<Value>(mean + j) +
                            equal(factor * value, load<Value>(most + j)) * load<Value>(share + j);
      if constexpr (sizeof(Value) == sizeof(T))
        rest += value * d_value;
      else
        sum += value * d_value;
      if (!d_x) return;
      Value d = factor * d_value;
      if (d_y) d += load<Value>(d_y + j);
      store(d_x + j, d);
    });
    if (d_gate) d_gate[i] = sum_of<T>(sum) + rest;
  }
}

// ------------------------------------------------------------------------------------- scaling

template <class Stored>
INLINE void scale(const Call& call, Index unit) {
  using T = typename Computed<Stored>::type;
  const Shape& shape = call.shape;
  const Rows rows(shape, unit);
  const T* columns = at<T>(call.columns, rows.sample * shape.columns);
  for (Index i = rows.begin; i < rows.end; ++i) {
    const Index row = rows.sample * shape.rows + i, offset = row * shape.columns;
    const Stored* x = at<Stored>(call.x, offset);
    Stored* y = at<Stored>(call.y, offset);
    const T factor = call.rows ? *at<T>(call.rows, row) : T(1);
    for_columns<T>(0, shape.columns, [&](auto zero, Index j) __attribute__((always_inline)) {
      using Value = decltype(zero);
      const Value value = load<Value>(x + j);
      Value scaled = factor * value;
      if (columns) scaled = load<Value>(columns + j) * scaled;
      store(y + j, call.residual ? value + scaled : scaled);
    });
  }
}

// d_x = columns * rows * d_y (+ d_y), d_rows = sum columns * x * d_y, d_columns = sum rows * x * d_y.
template <class Stored>
INLINE void scale_backward(const Call& call, Index unit) {
  using T = typename Computed<Stored>::type;
  const Shape& shape = call.shape;
  const Rows rows(shape, unit);
  const T* columns = at<T>(call.columns, rows.sample * shape.columns);
  T* d_columns = at<T>(call.d_columns, unit * shape.columns);
  if (d_columns) std::fill_n(d_columns, shape.columns, T(0));
  for (Index i = rows.begin; i < rows.end; ++i) {
    const Index row = rows.sample * shape.rows + i, offset = row * shape.columns;
    const Stored *x = at<Stored>(call.x, offset), *d_y = at<Stored>(call.d_y, offset);
    Stored* d_x = at<Stored>(call.d_x, offset);
    const T factor = call.rows ? *at<T>(call.rows, row) : T(1);
    typename Vector<T>::type sum = {};
    T rest = 0;
    for_columns<T>(0, shape.columns, [&](auto zero, Index j) __attribute__((always_inline)) {
      using Value = decltype(zero);
      const Value value = load<Value>(x + j), d = load<Value>(d_y + j);
      const Value other = columns ? load<Value>(columns + j) : Value{} + 1;
      const Value product = value * d;
      if constexpr (sizeof(Value) == sizeof(T))
        rest += other * product;
      else
        sum += other * product;
      if (d_columns) store(d_columns + j, load<Value>(d_columns + j) + factor * product);
      if (!d_x) return;
      const Value scaled = other * (factor * d);
      store(d_x + j, call.residual ? d + scaled : scaled);
    });
    if (call.d_rows) *at<T>(call.d_rows, row) = sum_of<T>(sum) + rest;
  }
}

// ------------------------------------------------------------------------------------ running

using Unit = void (*)(const Call&, Index);

#define FOR_EACH_DTYPE(function)                                                               \
  MULTIVERSIONED void function##_float(const Call& call, Index unit) {                         \
    function<float>(call, unit);                                                               \
  }                                                                                            \
  MULTIVERSIONED void function##_double(const Call& call, Index unit) {                        \
    function<double>(call, unit);                                                              \
  }                                                                                            \
  MULTIVERSIONED void function##_bfloat16(const Call& call, Index unit) {                      \
    function<bfloat16>(call, unit);                                                            \
  }                                                                                            \
  constexpr Unit function##_of[] = {function##_float, function##_double, function##_bfloat16};

}  // namespace

FOR_EACH_DTYPE(pool_rows)
FOR_EACH_DTYPE(pool_columns)
FOR_EACH_DTYPE(join_columns)
FOR_EACH_DTYPE(pool_rows_backward)
FOR_EACH_DTYPE(pool_columns_backward)
FOR_EACH_DTYPE(scale)
FOR_EACH_DTYPE(scale_backward)

thread_local const cbam::Threads* cbam::lent_threads = nullptr;

namespace {

enum { kFloat, kDouble, kBfloat16 };

struct Work {
  Unit unit;
  const Call& call;
};

void run_unit(const void* work, Index number) {
  const Work& one = *static_cast<const Work*>(work);
  one.unit(one.call, number);
}

// All units, on as many threads; below some size a thread takes longer to wake than to work.
void for_units(Unit unit, const Call& call, Index units, int threads) {
  const Shape& shape = call.shape;
  const bool is_small = shape.samples * shape.rows * shape.columns < 32768;
  if (is_small || threads < 2 || units < 2) {
    for (Index number = 0; number < units; ++number) unit(call, number);
    return;
  }
  if (cbam::lent_threads) {
    const Work work{unit, call};
    return cbam::lent_threads->run(units, run_unit, &work);
  }
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
  for (Index number = 0; number < units; ++number) unit(call, number);
}

// Memory for numbers of T that nobody has written yet; null where there is none.
template <class T>
std::unique_ptr<T[]> room_for(Index count) {
  return std::unique_ptr<T[]>(new (std::nothrow) T[count]);
}

template <class T>
int pool_columns(int dtype, Call call, int threads) {
  const Shape& shape = call.shape;
  const auto parts = room_for<T>(3 * shape.units() * shape.columns);
  call.parts = parts.get();
  if (!parts) return 1;
  for_units(pool_columns_of[dtype], call, shape.units(), threads);
  for_units(join_columns_of[dtype], call, shape.samples, threads);
  return 0;
}

template <class T>
int pool_columns_backward(int dtype, Call call, int threads) {
  const Shape& shape = call.shape;
  const auto parts = room_for<T>(2 * shape.units() * shape.columns);
  call.parts = parts.get();
  if (!parts) return 1;
  for_units(pool_columns_backward_of[dtype], call, shape.units(), threads);
  return 0;
}

// A gradient each of whose units has a sum for every column, d_columns.
template <class T>
int with_column_sums(Unit unit, Call call, int threads) {
  const Shape& shape = call.shape;
  const Index units = shape.units_each();
  if (!call.d_columns || units == 1) {
    for_units(unit, call, shape.units(), threads);
    return 0;
  }
  T* total = static_cast<T*>(call.d_columns);
  const auto parts = room_for<T>(shape.units() * shape.columns);
  call.d_columns = parts.get();
  if (!parts) return 1;
  for_units(unit, call, shape.units(), threads);
  for (Index sample = 0; sample < shape.samples; ++sample, total += shape.columns) {
    const T* part = &parts[sample * units * shape.columns];
    std::copy_n(part, shape.columns, total);
    for (Index unit = 1; unit < units; ++unit)
      for (Index j = 0; j < shape.columns; ++j) total[j] += part[unit * shape.columns + j];
  }
  return 0;
}

// Large new memory comes in pages of 4 KiB, and the first touch of each is a fault, which takes
// longer than all the arithmetic here. Linux hands out pages of 2 MiB where it is asked to.
void expect_much(const Shape& shape, int dtype, void* memory) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t page = 1 << 21;
  const Index size = dtype == kDouble ? 8 : dtype == kFloat ? 4 : 2;
  const auto begin = reinterpret_cast<std::uintptr_t>(memory);
  const auto end = begin + std::uintptr_t(shape.samples * shape.rows * shape.columns * size);
  const std::uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
  if (memory && last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace

// ------------------------------------------------------------------- interface, see primitives.h

EXPORT int cbam_pool_rows(int dtype, int threads, Index samples, Index rows, Index columns,
                          const void* x, const void* gate, void* avg, void* max, void* ties) {
  Call call{{samples, rows, columns}};
  call.x = x, call.columns = gate;
  call.avg = avg, call.max = max, call.ties = ties;
  for_units(pool_rows_of[dtype], call, call.shape.units(), threads);
  return 0;
}

EXPORT int cbam_pool_columns(int dtype, int threads, Index samples, Index rows, Index columns,
                             const void* x, const void* gate, void* avg, void* max, void* ties) {
  Call call{{samples, rows, columns}};
  call.x = x, call.rows = gate;
  call.avg = avg, call.max = max, call.ties = ties;
  return dtype == kDouble ? pool_columns<double>(dtype, call, threads)
                          : pool_columns<float>(dtype, call, threads);
}

EXPORT int cbam_pool_rows_backward(int dtype, int threads, Index samples, Index rows,
                                   Index columns, const void* x, const void* gate, const void* max,
                                   const void* ties, const void* d_avg, const void* d_max,
                                   const void* d_y, void* d_x, void* d_gate) {
  Call call{{samples, rows, columns}};
  call.x = x, call.columns = gate, call.most = max, call.tied = ties;
  call.d_avg = d_avg, call.d_max = d_max, call.d_y = d_y;
  call.d_x = d_x, call.d_columns = d_gate;
  if (d_x != d_y) expect_much(call.shape, dtype, d_x);
  const Unit unit = pool_rows_backward_of[dtype];
  return dtype == kDouble ? with_column_sums<double>(unit, call, threads)
                          : with_column_sums<float>(unit, call, threads);
}

EXPORT int cbam_pool_columns_backward(int dtype, int threads, Index samples, Index rows,
                                      Index columns, const void* x, const void* gate,
                                      const void* max, const void* ties, const void* d_avg,
                                      const void* d_max, const void* d_y, void* d_x,
                                      void* d_gate) {
  Call call{{samples, rows, columns}};
  call.x = x, call.rows = gate, call.most = max, call.tied = ties;
  call.d_avg = d_avg, call.d_max = d_max, call.d_y = d_y;
  call.d_x = d_x, call.d_rows = d_gate;
  if (d_x != d_y) expect_much(call.shape, dtype, d_x);
  return dtype == kDouble ? pool_columns_backward<double>(dtype, call, threads)
                          : pool_columns_backward<float>(dtype, call, threads);
}

EXPORT int cbam_scale(int dtype, int threads, Index samples, Index rows, Index columns,
                      const void* x, const void* row_gate, const void* column_gate, int residual,
                      void* y) {
  Call call{{samples, rows, columns}};
  call.x = x, call.rows = row_gate, call.columns = column_gate, call.y = y;
  call.residual = residual != 0;
  expect_much(call.shape, dtype, y);
  for_units(scale_of[dtype], call, call.shape.units(), threads);
  return 0;
}

EXPORT int cbam_scale_backward(int dtype, int threads, Index samples, Index rows, Index columns,
                               const void* x, const void* row_gate, const void* column_gate,
                               int residual, const void* d_y, void* d_x, void* d_rows,
                               void* d_columns) {
  Call call{{samples, rows, columns}};
  call.x = x, call.rows = row_gate, call.columns = column_gate, call.d_y = d_y;
  call.d_x = d_x, call.d_rows = d_rows, call.d_columns = d_columns;
  call.residual = residual != 0;
  expect_much(call.shape, dtype, d_x);
  const Unit unit = scale_backward_of[dtype];
  return dtype == kDouble ? with_column_sums<double>(unit, call, threads)
                          : with_column_sums<float>(unit, call, threads);
}
