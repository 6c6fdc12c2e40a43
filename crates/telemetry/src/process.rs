//! The figures of this process, read from `/proc` when they are asked for, under the names of Prometheus' own
//! clients; and which program it is.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// USER_HZ, which Linux fixes for user space.
const TICKS_PER_SEC: f64 = 100.0;

/// Registers them. `program` and `version` are labels of `purelb_build_info`.
pub fn register(registry: &mut Registry, program: &'static str, version: &'static str) {
    registry.register_collector(Box::new(Process { program, version }));
}

#[derive(Debug)]
struct Process {
    program: &'static str,
    version: &'static str,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let labels = [("program", self.program), ("version", self.version)];
        let mut build = encoder.encode_descriptor(
            "purelb_build_info",
            "Which program this is",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1_i64).encode(build.encode_family(&labels)?)?;
        // A program that serves this knows how to reach the API server: it ends where it does not.
        let loaded = encoder.encode_descriptor(
            "purelb_k8s_client_config_loaded_bool",
            "1 once it is known how the API server is reached",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1_i64).encode(loaded)?;
        let stat = Stat::read();
        if let Some(stat) = &stat {
            let cpu = encoder.encode_descriptor(
                "process_cpu_seconds",
                "Processor time of the program and of the kernel on its behalf, in seconds",
                None,
                MetricType::Counter,
            )?;
            ConstCounter::new(stat.cpu_secs).encode(cpu)?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let octets = |key| number_of(&status, key).map(|kib| kib * 1024.0);
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count());
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory in octets", octets("VmRSS:")),
            ("process_virtual_memory_bytes", "Virtual memory in octets", octets("VmSize:")),
            ("process_threads", "Threads", number_of(&status, "Threads:")),
            // Looking takes one itself.
            (
                "process_open_fds",
                "Open file descriptors",
                open.ok().map(|count| count.saturating_sub(1) as f64),
            ),
            (
                "process_max_fds",
                "Most file descriptors that may be open",
                number_of(&limits, "Max open files"),
            ),
            (
                "process_start_time_seconds",
                "When the process was started, in seconds since 1970",
                stat.and_then(|stat| Some(boot_time()? + stat.started_after_boot_secs)),
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(gauge)?;
            }
        }
        Ok(())
    }
}

/// What `/proc/self/stat` says.
struct Stat {
    cpu_secs: f64,
    started_after_boot_secs: f64,
}

impl Stat {
    fn read() -> Option<Stat> {
        Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// The name of the command may contain blanks and brackets: fields are counted behind it.
    fn parse(text: &str) -> Option<Stat> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Stat {
            cpu_secs: (ticks(11)? + ticks(12)?) / TICKS_PER_SEC,
            started_after_boot_secs: ticks(19)? / TICKS_PER_SEC,
        })
    }
}

/// Seconds since 1970.
fn boot_time() -> Option<f64> {
    number_of(&fs::read_to_string("/proc/stat").ok()?, "btime")
}

/// The first number of the line that begins with the key.
fn number_of(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn the_names_are_those_of_prometheus_own_clients_and_the_values_are_sane() {
        let mut registry = Registry::default();
        register(&mut registry, "test", "1.2.3");
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let value =
            |name: &str| number_of(&text, &format!("{name} ")).unwrap_or_else(|| panic!("no {name}: {text}"));
        assert!(text.contains("purelb_build_info{program=\"test\",version=\"1.2.3\"} 1"), "{text}");
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        assert!(value("process_threads") >= 1.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
    }

    #[test]
    fn a_command_with_brackets_and_blanks_in_its_name_is_no_trap() {
        let stat = "7 (a) b ) c) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 4 0 12345 1 1";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!((stat.cpu_secs, stat.started_after_boot_secs), (3.0, 123.45));
    }
}
