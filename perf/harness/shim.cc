/* SPDX-License-Identifier: MIT */
// The only C++ of the project: hands the table of cases to Google Benchmark and its results back.
#include <benchmark/benchmark.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "perf/harness/perf.h"

namespace
{

// Google Benchmark copies counters by value; the names' storage must outlive a round.
const char *intern(const std::string &name)
{
	static std::map<std::string, int> names;

	return names.emplace(name, 0).first->first.c_str();
}

void run_case(benchmark::State &state, unsigned index)
{
	const struct perf_case *c = &perf_table.cases[index];
	struct perf_sample sample = {};
	char why[256] = "";
	void *ctx = nullptr;
	uint64_t n = (uint64_t)state.max_iterations;
	int r = c->setup ? c->setup(c->arg, &ctx, why) : 0;

	if (r < 0) {
		state.SkipWithError(why[0] ? why : strerror(-r));
		return;
	}
	while (state.KeepRunningBatch((int64_t)n)) {
		r = c->run(ctx, n, c->sliced ? perf_options.slice_ns : 0, &sample, why);
		if (r < 0) {
			state.SkipWithError(why[0] ? why : strerror(-r));
			break;
		}
		state.SetIterationTime((double)sample.elapsed_ns / 1e9);
	}
	if (r >= 0)
		for (unsigned i = 0; i < sample.nr_counters; i++)
			state.counters[sample.counters[i].name] = sample.counters[i].value;
	if (c->teardown)
		c->teardown(ctx);
}

class Collector : public benchmark::BenchmarkReporter
{
public:
	void (*fn)(const char *, const char *, const struct perf_sample *) = nullptr;

	bool ReportContext(const Context &) override
	{
		return true;
	}

	void ReportRuns(const std::vector<Run> &runs) override
	{
		for (const Run &run : runs) {
			if (run.run_type != Run::RT_Iteration)
				continue;
			struct perf_sample sample = {};
			sample.elapsed_ns = (uint64_t)(run.real_accumulated_time * 1e9);
			for (const auto &counter : run.counters)
				perf_count(&sample, intern(counter.first), counter.second.value);
			if (run.iterations > 1)
				perf_count(&sample, "ns",
					run.real_accumulated_time * 1e9 / (double)run.iterations);
			fn(run.run_name.function_name.c_str(),
				run.error_occurred ? run.error_message.c_str() : nullptr, &sample);
		}
	}
};

} // namespace

extern "C" int perf_shim_init(int *argc, char **argv)
{
	benchmark::Initialize(argc, argv);
	for (unsigned i = 0; i < perf_table.nr; i++) {
		auto *b = benchmark::RegisterBenchmark(perf_table.cases[i].name,
			[i](benchmark::State &state) { run_case(state, i); });
		b->UseManualTime();
		if (perf_table.cases[i].sliced)
			b->Iterations(1);
	}
	return 0;
}

extern "C" int perf_shim_run(unsigned index,
	void (*fn)(const char *, const char *, const struct perf_sample *))
{
	Collector collector;

	// Names have no letters that a regex minds; behind ours comes "/iterations:1/manual_time".
	collector.fn = fn;
	return (int)benchmark::RunSpecifiedBenchmarks(&collector,
		std::string("^") + perf_table.cases[index].name + "/(iterations|manual_time)");
}
