// The kernels of primitives.cpp as XLA calls them on CPUs, through its foreign function interface.
//
// That interface is a C API of structures, each of which says its size. They are declared here as
// far as they are read, so that no framework has to be there when this is built; XLA promises to
// serve a version for a year after the next. The map x comes first, (N, positions..., channels), an
// empty buffer stands for null, and units run on XLA's own threads.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <new>
#include <numeric>

#include "primitives.h"

using cbam::Index;

// -------------------------------------------------------------- the interface, xla/ffi/api/c_api.h

namespace {

// What this file knows, the first of which has all that it reads.
constexpr int kMajor = 0, kFirstMinor = 1, kLastMinor = 3;

enum { kMetadata = 1 };                            // XLA_FFI_Extension_Type
enum { kExecute = 3 };                             // XLA_FFI_ExecutionStage
enum { kF32 = 11, kF64 = 12, kBF16 = 16 };         // XLA_FFI_DataType
enum { kExhausted = 8, kFailedPrecondition = 9 };  // XLA_FFI_Error_Code

struct Error;
struct Context;

struct Extension {
  std::size_t size;
  int type;
  Extension* next;
};

struct Header {
  std::size_t size;
  Extension* extensions;
};

struct Version {
  Header header;
  int major, minor;
};

struct Metadata {
  std::size_t size;
  Version version;
};

struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

struct ErrorArguments {
  Header header;
  const char* message;
  int code;
};

struct DestroyArguments {
  Header header;
  Error* error;
};

struct ScheduleArguments {
  Header header;
  Context* context;
  void (*task)(void*);
  void* data;
};

struct CountArguments {
  Header header;
  Context* context;
  Index* threads;
};

struct Api {
  Header header;
  Version version;
  const void* internal;
  Error* (*make_error)(ErrorArguments*);
  void (*get_message)();
  void (*destroy_error)(DestroyArguments*);
  void (*others[8])();
  Error* (*schedule)(ScheduleArguments*);
  Error* (*count_threads)(CountArguments*);
};

struct Buffer {
  Header header;
  int dtype;
  void* data;
  Index rank;
  const Index* sizes;
};

struct Buffers {
  Header header;
  Index count;
  const int* types;
  Buffer* const* buffers;
};

struct Scalar {
  int dtype;
  const void* value;
};

struct Attributes {
  Header header;
  Index count;
  const int* types;
  const void* names;
  const Scalar* const* values;
};

struct Frame {
  Header header;
  const Api* api;
  Context* context;
  int stage;
  Buffers inputs, outputs;
  Attributes attributes;
};

// ----------------------------------------------------------------------------------- XLA's threads

// Units that whoever has time takes one by one. The thread that shares them out takes them too, for
// XLA may have no other that is free; one that comes when all are taken finds nothing to do.
class Shared {
 public:
  Shared(Index units, void (*unit)(const void*, Index), const void* work, Index holders)
      : units_(units), unit_(unit), work_(work), holders_(holders) {}

  void take() {
    Index number, taken = 0;
    for (; (number = next_.fetch_add(1)) < units_; ++taken) unit_(work_, number);
    if (!taken) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if ((done_ += taken) == units_) all_done_.notify_one();
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [this] { return done_ == units_; });
  }

  void release() {
    if (--holders_ == 0) delete this;
  }

 private:
  const Index units_;
  void (*const unit_)(const void*, Index);
  const void* const work_;
  std::atomic<Index> next_{0}, holders_;
  Index done_ = 0;
  std::mutex mutex_;
  std::condition_variable all_done_;
};

void take_and_release(void* shared) {
  static_cast<Shared*>(shared)->take();
  static_cast<Shared*>(shared)->release();
}

class XlaThreads : public cbam::Threads {
 public:
  explicit XlaThreads(const Frame& frame) : frame_(frame) { cbam::lent_threads = this; }
  ~XlaThreads() { cbam::lent_threads = nullptr; }

  // How many threads XLA has, 1 where it does not say.
  int count() const {
    Index threads = 1;
    CountArguments arguments{{sizeof arguments, nullptr}, frame_.context, &threads};
    return is_done(frame_.api->count_threads(&arguments)) ? int(threads) : 1;
  }

  void run(Index units, void (*unit)(const void*, Index), const void* work) const override {
    const Index helpers = std::min<Index>(count(), units) - 1;
    Shared* shared = new (std::nothrow) Shared(units, unit, work, helpers + 1);
    if (!shared) {
      for (Index number = 0; number < units; ++number) unit(work, number);
      return;
    }
    for (Index helper = 0; helper < helpers; ++helper) {
      ScheduleArguments arguments{
          {sizeof arguments, nullptr}, frame_.context, take_and_release, shared};
      if (!is_done(frame_.api->schedule(&arguments))) shared->release();
    }
    shared->take();
    shared->wait();
    shared->release();
  }

 private:
  bool is_done(Error* error) const {
    if (!error) return true;
    DestroyArguments arguments{{sizeof arguments, nullptr}, error};
    frame_.api->destroy_error(&arguments);
    return false;
  }

  const Frame& frame_;
};

// ------------------------------------------------------------------------------------------- calls

Error* error(const Frame& frame, int code, const char* message) {
  ErrorArguments arguments{{sizeof arguments, nullptr}, message, code};
  return frame.api->make_error(&arguments);
}

void* address(const Buffer& buffer) {
  const bool is_empty = std::count(buffer.sizes, buffer.sizes + buffer.rank, 0);
  return is_empty ? nullptr : buffer.data;
}

// What the functions of primitives.cpp begin with, and the addresses of inputs, then of outputs.
struct Arguments {
  int dtype, threads;
  Index samples, positions, channels;
  void* at[9];
  int residual;
};

template <int inputs, int outputs>
Error* handle(Frame* frame, int (*call)(const Arguments&)) {
  const Api& api = *frame->api;
  for (Extension* one = frame->header.extensions; one; one = one->next)
    if (one->type == kMetadata) {
      Version& version = reinterpret_cast<MetadataExtension*>(one)->metadata->version;
      version.major = kMajor;
      version.minor = std::clamp(api.version.minor, kFirstMinor, kLastMinor);
      return nullptr;
    }
  if (frame->stage != kExecute) return nullptr;
  const Buffer& x = *frame->inputs.buffers[0];
  const bool is_known = api.version.major == kMajor && api.header.size >= sizeof(Api) &&
                        frame->header.size >= sizeof(Frame) && x.header.size >= sizeof(Buffer) &&
                        frame->inputs.count == inputs && frame->outputs.count == outputs &&
                        x.rank >= 3;
  if (!is_known)
    return error(*frame, kFailedPrecondition,
                 "cbam's native kernels do not know this version of XLA's interface; "
                 "set CBAM_KERNELS=off");
  const XlaThreads threads(*frame);
  const Index* channels = x.sizes + x.rank - 1;
  const Index positions = std::accumulate(x.sizes + 1, channels, Index(1), std::multiplies<>());
  Arguments arguments{x.dtype == kF32 ? 0 : x.dtype == kF64 ? 1 : 2, threads.count(), x.sizes[0],
                      positions, *channels, {}, 0};
  for (int i = 0; i < inputs; ++i) arguments.at[i] = address(*frame->inputs.buffers[i]);
  for (int i = 0; i < outputs; ++i) arguments.at[inputs + i] = address(*frame->outputs.buffers[i]);
  if (frame->attributes.count)
    arguments.residual = *static_cast<const bool*>(frame->attributes.values[0]->value);
  if (call(arguments))
    return error(*frame, kExhausted,
                 "no memory is left for the sums of a map; make the batch smaller");
  return nullptr;
}

}  // namespace

#define HANDLER(name, inputs, outputs, ...)                                                     \
  EXPORT Error* cbam_xla_##name(Frame* frame) {                                                 \
    return handle<inputs, outputs>(frame, [](const Arguments& of) {                             \
      const auto& at = of.at;                                                                   \
      return cbam_##name(of.dtype, of.threads, of.samples, of.positions, of.channels,           \
                         __VA_ARGS__);                                                          \
    });                                                                                         \
  }

HANDLER(pool_rows, 2, 3, at[0], at[1], at[2], at[3], at[4])
HANDLER(pool_columns, 2, 3, at[0], at[1], at[2], at[3], at[4])
HANDLER(pool_rows_backward, 7, 2, at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8])
HANDLER(pool_columns_backward, 7, 2, at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8])
HANDLER(scale, 3, 1, at[0], at[1], at[2], of.residual, at[3])
HANDLER(scale_backward, 4, 3, at[0], at[1], at[2], of.residual, at[3], at[4], at[5], at[6])
