//! Logs: lines on standard error, written by a thread of their own so that a slow reader never holds a request up.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Registry};

use crate::config::Log;
use crate::config::values::LogFormat;

/// How many lines may wait for a reader. Further ones are dropped: serving goes before logging.
const WAITING_LINES: usize = 64 * 1024;

/// Begins to log. What is still waiting is written when the guard is dropped.
///
/// # Panics
/// When called twice in one process.
pub fn start(log: &Log) -> WorkerGuard {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true).finish(std::io::stderr());
    let filter = EnvFilter::builder().parse(log.level.directives()).expect("the configuration was checked");
    let registry = Registry::default().with(filter);
    let started = match log.format {
        LogFormat::Json => tracing::subscriber::set_global_default(registry.with(JsonLines { writer })),
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
            tracing::subscriber::set_global_default(registry.with(lines))
        }
    };
    started.expect("logging is started once");
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "{}", panic.payload_as_str().unwrap_or("a panic"));
    }));
    guard
}

/// One JSON object a line: `timestamp`, `level`, `target`, the event's fields with its `message`, and the fields of the
/// spans around it, all side by side: `request_id` is then in every line of a request under the same name. No name is in
/// a line twice, since readers of JSON disagree about what that means: the event's own value goes before its spans', and
/// an inner span's before an outer one's.
struct JsonLines {
    writer: NonBlocking,
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = JsonFields::default();
        attributes.record(&mut fields);
        let span = context.span(id).expect("a new span is registered");
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).expect("a recorded span is registered");
        if let Some(earlier) = span.extensions_mut().get_mut::<JsonFields>() {
            let mut fields = JsonFields::default();
            values.record(&mut fields);
            fields.add_missing(earlier);
            *earlier = fields;
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let line = render(event, &context);
        // A line that cannot be written is lost; there is nowhere to say so.
        let _ = self.writer.clone().write_all(&line);
    }
}

fn render<S: Subscriber + for<'span> LookupSpan<'span>>(event: &Event<'_>, context: &Context<'_, S>) -> Vec<u8> {
    let mut time = String::with_capacity(32);
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let mut line = JsonFields { json: Vec::with_capacity(512), ends: Vec::with_capacity(16) };
    line.add("timestamp", |json| push_text(json, &time));
    line.add("level", |json| push_text(json, event.metadata().level().as_str()));
    line.add("target", |json| push_text(json, event.metadata().target()));
    event.record(&mut line);
    // From the innermost outwards.
    for span in context.event_scope(event).into_iter().flatten() {
        if let Some(fields) = span.extensions().get::<JsonFields>() {
            line.add_missing(fields);
        }
    }
    let mut line = line.json;
    // Each field begins with a comma.
    line[0] = b'{';
    line.extend_from_slice(b"}\n");
    line
}

fn push_text(line: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(line, text).expect("a text is always JSON, and a vector takes all bytes");
}

/// Fields as JSON, no two of one name.
#[derive(Default)]
struct JsonFields {
    /// `,"name":value` of each.
    json: Vec<u8>,
    /// The name of each, and where it ends.
    ends: Vec<(&'static str, usize)>,
}

impl JsonFields {
    /// Adds a field, whose value `push` appends, unless there is one of that name.
    fn add(&mut self, name: &'static str, push: impl FnOnce(&mut Vec<u8>)) {
        if self.ends.iter().any(|(there, _)| *there == name) {
            return;
        }
        self.json.push(b',');
        push_text(&mut self.json, name);
        self.json.push(b':');
        push(&mut self.json);
        self.ends.push((name, self.json.len()));
    }

    /// Adds those of `others` whose names are not there.
    fn add_missing(&mut self, others: &Self) {
        let mut start = 0;
        for (name, end) in &others.ends {
            if !self.ends.iter().any(|(there, _)| there == name) {
                self.json.extend_from_slice(&others.json[start..*end]);
                self.ends.push((name, self.json.len()));
            }
            start = *end;
        }
    }

    fn display(&mut self, field: &Field, value: impl fmt::Display) {
        self.add(field.name(), |json| {
            let _ = write!(json, "{value}");
        });
    }
}

impl Visit for JsonFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), |json| push_text(json, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.display(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.display(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.display(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.display(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.display(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities.
        if value.is_finite() {
            self.display(field, value);
        } else {
            self.record_str(field, &value.to_string());
        }
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.record_str(field, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `log` causes, as JSON.
    fn lines(log: impl FnOnce()) -> Vec<serde_json::Value> {
        let sink = Sink::default();
        let (writer, guard) = tracing_appender::non_blocking(sink.clone());
        tracing::subscriber::with_default(Registry::default().with(JsonLines { writer }), log);
        drop(guard);
        let written = sink.0.lock().unwrap().clone();
        String::from_utf8(written).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_holds_the_event_and_the_fields_of_its_spans() {
        let lines = lines(|| {
            let request = tracing::info_span!("request", request_id = "r-1", user = tracing::field::Empty);
            let _inside = request.enter();
            request.record("user", "ci");
            tracing::debug_span!("store", rows = 3).in_scope(|| tracing::warn!(bytes = 7_u64, "slow \"quoted\"\n"));
        });
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "slow \"quoted\"\n");
        assert_eq!(line["target"], "registry_server::logging::tests");
        assert_eq!((&line["bytes"], &line["rows"]), (&7.into(), &3.into()));
        assert_eq!((&line["request_id"], &line["user"]), (&"r-1".into(), &"ci".into()));
        assert!(humantime::parse_rfc3339(line["timestamp"].as_str().unwrap()).is_ok());
    }

    /// Readers take the first, the last, or none of two values: `serde_json` the last.
    #[test]
    fn no_line_has_a_name_twice() {
        let sink = Sink::default();
        let (writer, guard) = tracing_appender::non_blocking(sink.clone());
        tracing::subscriber::with_default(Registry::default().with(JsonLines { writer }), || {
            let request = tracing::info_span!("request", request_id = "outer", user = "nobody", level = 9);
            let _inside = request.enter();
            request.record("user", "ci");
            tracing::info_span!("store", user = "store").in_scope(|| {
                tracing::error!(request_id = "own", target = "elsewhere", "failed");
            });
            tracing::info!("still there");
        });
        drop(guard);
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = written.lines().map(|line| line.split_once(",\"level\"").unwrap().1).collect();
        assert_eq!(
            lines,
            [
                r#":"ERROR","target":"registry_server::logging::tests","message":"failed","request_id":"own","user":"store"}"#,
                r#":"INFO","target":"registry_server::logging::tests","message":"still there","user":"ci","request_id":"outer"}"#,
            ]
        );
    }

    #[test]
    fn values_keep_their_types() {
        let lines = lines(|| {
            let cause = std::io::Error::other(std::io::Error::other("disk"));
            tracing::info!(
                yes = true,
                minus = -1_i64,
                half = 0.5,
                never = f64::NAN,
                list = ?[1, 2],
                error = &cause as &dyn std::error::Error,
            );
        });
        let line = &lines[0];
        assert_eq!((&line["yes"], &line["minus"], &line["half"]), (&true.into(), &(-1).into(), &0.5.into()));
        assert_eq!((&line["never"], &line["list"]), (&"NaN".into(), &"[1, 2]".into()));
        assert!(line["error"].as_str().unwrap().contains("disk"));
    }
}
