// Every kernel on memory of exactly the size that it may touch, to be built with sanitizers.
//
// Prints nothing and returns 0 where all is well; the sanitizers end the process otherwise, and it
// returns 1 where the bits depend on the number of threads, or on whose they are. With PLANTED it
// gives a kernel one byte too few, which the sanitizers have to find.

#include "primitives.cpp"
#include "xla.cpp"

#include <cstdio>
#include <random>
#include <thread>
#include <vector>

namespace {

using Bytes = std::vector<unsigned char>;

struct Size {
  Index samples, rows, columns;
  Index map() const { return samples * rows * columns; }
};

constexpr Index kBytes[] = {4, 8, 2};

// Numbers of a dtype: some equal, some zero, a NaN and an infinity now and then.
Bytes numbers(int dtype, Index count, std::mt19937& random) {
  Bytes bytes(count * kBytes[dtype]);
  for (Index k = 0; k < count; ++k) {
    const unsigned draw = random() % 1000;
    double value = double(int(random() % 9)) - 4;
    if (draw == 0) value = std::numeric_limits<double>::quiet_NaN();
    if (draw == 1) value = std::numeric_limits<double>::infinity();
    if (dtype == kDouble) {
      std::memcpy(&bytes[8 * k], &value, 8);
    } else {
      const float single = float(value);
      if (dtype == kFloat) std::memcpy(&bytes[4 * k], &single, 4);
      else store(reinterpret_cast<bfloat16*>(&bytes[2 * k]), single);
    }
  }
  return bytes;
}

// ---------------------------------------------------------------------------- what stands for XLA

using Handler = Error* (*)(Frame*);
using Running = std::vector<std::thread>;

Error* count_three(CountArguments* arguments) {
  *arguments->threads = 3;
  return nullptr;
}

Error* start(ScheduleArguments* arguments) {
  Running& running = *reinterpret_cast<Running*>(arguments->context);
  running.emplace_back(arguments->task, arguments->data);
  return nullptr;
}

// What a handler is called on: addresses in their order, and an attribute.
struct Places {
  std::vector<void*> at;
  bool residual = false;

  void add(const void* address) { at.push_back(const_cast<void*>(address)); }
  void add(bool value) { residual = value; }
};

void call(Handler handler, int dtype, const Size& size, Index inputs, const Places& places) {
  constexpr int dtypes[] = {kF32, kF64, kBF16};
  const Index sizes[] = {size.samples, size.rows, size.columns}, none = 0, some = 1;
  std::vector<Buffer> buffers;
  for (void* at : places.at) buffers.push_back({{sizeof(Buffer)}, 0, at, 1, at ? &some : &none});
  buffers[0].dtype = dtypes[dtype], buffers[0].rank = 3, buffers[0].sizes = sizes;
  std::vector<Buffer*> all;
  for (Buffer& buffer : buffers) all.push_back(&buffer);
  Api api{{sizeof(Api)}, {{sizeof(Version)}, kMajor, kLastMinor}};
  api.schedule = start, api.count_threads = count_three;
  const Scalar scalar{0, &places.residual};
  const Scalar* attribute = &scalar;
  Running running;
  Frame frame{{sizeof(Frame)}, &api, reinterpret_cast<Context*>(&running), kExecute,
              {{}, inputs, nullptr, all.data()},
              {{}, Index(all.size()) - inputs, nullptr, all.data() + inputs},
              {{}, 1, nullptr, nullptr, &attribute}};
  handler(&frame);
  for (std::thread& thread : running) thread.join();
}

// ------------------------------------------------------------------------------------ every kernel

// What one call of everything writes, put together; as XLA calls it where `threads` is 0.
Bytes run_all(int dtype, int threads, const Size& size, bool gated, bool residual) {
  std::mt19937 random(7);
  const int wide = dtype == kDouble ? kDouble : kFloat;
  const auto [n, a, b] = size;
  Bytes x = numbers(dtype, size.map(), random), d_y = numbers(dtype, size.map(), random);
  Bytes rows = numbers(wide, n * a, random), columns = numbers(wide, n * b, random);
  Bytes d_rows = numbers(wide, n * a, random), d_columns = numbers(wide, n * b, random);
  const void *row_gate = gated ? rows.data() : nullptr, *column_gate = gated ? columns.data() : nullptr;
  Bytes all;
  const auto keep = [&](const Bytes& bytes) { all.insert(all.end(), bytes.begin(), bytes.end()); };
  const auto like = [](const Bytes& bytes) { return Bytes(bytes.size()); };
  const auto run = [&](auto kernel, Handler handler, Index inputs, auto... at) {
    if (threads)
      return void(kernel(dtype, threads, size.samples, size.rows, size.columns, at...));
    Places places;
    (places.add(at), ...);
    call(handler, dtype, size, inputs, places);
  };
#define RUN(name, inputs, ...) run(cbam_##name, cbam_xla_##name, inputs, __VA_ARGS__)

  Bytes avg = like(rows), max = like(rows), ties = like(rows), d_x = like(x), d_gate = like(columns);
  RUN(pool_rows, 2, x.data(), column_gate, avg.data(), max.data(), ties.data());
  RUN(pool_rows_backward, 7, x.data(), column_gate, max.data(), ties.data(), d_rows.data(),
      d_rows.data(), d_y.data(), d_x.data(), gated ? d_gate.data() : nullptr);
  for (const Bytes& bytes : {avg, max, ties, d_x, d_gate}) keep(bytes);

  avg = max = ties = like(columns), d_gate = like(rows);
  RUN(pool_columns, 2, x.data(), row_gate, avg.data(), max.data(), ties.data());
  RUN(pool_columns_backward, 7, x.data(), row_gate, max.data(), ties.data(),
      gated ? d_columns.data() : nullptr, d_columns.data(), nullptr, d_x.data(),
      gated ? d_gate.data() : nullptr);
  for (const Bytes& bytes : {avg, max, ties, d_x, d_gate}) keep(bytes);

#ifdef PLANTED
  Bytes y(x.size() - 1);
#else
  Bytes y(x.size());
#endif
  Bytes of_rows = like(rows), of_columns = like(columns);
  RUN(scale, 3, x.data(), row_gate, column_gate, residual, y.data());
  RUN(scale_backward, 4, x.data(), row_gate, column_gate, residual, d_y.data(), d_x.data(),
      gated ? of_rows.data() : nullptr, gated ? of_columns.data() : nullptr);
  for (const Bytes& bytes : {y, of_rows, of_columns, d_x}) keep(bytes);
  // In place, as the gradients of a chain are gathered.
  RUN(pool_rows_backward, 7, x.data(), nullptr, d_rows.data(), rows.data(), nullptr, d_rows.data(),
      d_y.data(), d_y.data(), nullptr);
  keep(d_y);
  return all;
}

}  // namespace

int main() {
  const Size sizes[] = {{1, 1, 1},    {2, 3, 5},    {1, 7, 16},   {3, 70, 33},
                        {1, 200, 97}, {2, 65, 401}, {1, 3, 5000}, {1, 5000, 3}};
  for (int dtype : {kFloat, kDouble, kBfloat16})
    for (const Size& size : sizes)
      for (bool gated : {false, true})
        for (bool residual : {false, true})
          for (int threads : {3, 0})
            if (run_all(dtype, 1, size, gated, residual) !=
                run_all(dtype, threads, size, gated, residual)) {
              std::printf("dtype %d, (%ld, %ld, %ld): other bits on %d threads\n", dtype,
                          long(size.samples), long(size.rows), long(size.columns), threads);
              return 1;
            }
  return 0;
}
