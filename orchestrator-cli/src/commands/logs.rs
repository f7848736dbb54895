//! `runs logs`.

use std::collections::HashMap;
use std::time::Duration;

use console::Style;
use orchestrator_core::text::one_line;
use orchestrator_core::{LogLine, Orchestrator, RunId};

use crate::exit::Trouble;
use crate::find::{self, Run};
use crate::json::LogJson;
use crate::{print, time};

/// How often the store is asked for more.
const EVERY: Duration = Duration::from_millis(200);

pub(super) async fn print(orchestrator: &Orchestrator, text: &str, follow: bool, json: bool) -> Result<(), Trouble> {
    let id = find::run(orchestrator, text).await?;
    let mut names = Names(HashMap::new());
    let mut last = 0;
    loop {
        // The state is looked at first: once the run has ended, no line comes after those that are read now.
        let ended = Run::read(orchestrator, id).await?.state().is_terminal();
        let mut lines = orchestrator.logs_after(id, last, usize::MAX).await?;
        last = lines.iter().map(|(number, _)| *number).fold(last, u64::max);
        lines.sort_by_key(|(_, line)| line.timestamp);
        let mut page = Vec::with_capacity(lines.len());
        for (_, line) in &lines {
            page.push((line, names.of(orchestrator, line.run).await?));
        }
        match (json, follow) {
            (true, false) => {
                print::json(&page.iter().map(|(line, name)| LogJson::new(line, name)).collect::<Vec<_>>())?
            }
            (true, true) => page.iter().try_for_each(|(line, name)| print::json_line(&LogJson::new(line, name)))?,
            (false, _) => print::out(&page.iter().map(|(line, name)| shown(line, name)).collect::<String>())?,
        }
        if ended || !follow {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn shown(line: &LogLine, run: &str) -> String {
    let level = format!("{:5}", line.level);
    let level = match &*line.level {
        "ERROR" => Style::new().red().bold().apply_to(level),
        "WARN" => Style::new().yellow().apply_to(level),
        "INFO" => Style::new().green().apply_to(level),
        _ => Style::new().dim().apply_to(level),
    };
    let message = print::lines(&line.message).replace('\n', "\n    ");
    format!("{} {level} {}: {message}\n", print::dim(time::exact(line.timestamp)), one_line(run))
}

/// The names of runs that have written lines.
struct Names(HashMap<RunId, String>);

impl Names {
    async fn of(&mut self, orchestrator: &Orchestrator, id: RunId) -> Result<String, Trouble> {
        if let Some(name) = self.0.get(&id) {
            return Ok(name.clone());
        }
        let name = match Run::read(orchestrator, id).await {
            Ok(run) => run.name().to_owned(),
            Err(trouble) if trouble.code == crate::exit::NOT_FOUND => id.to_string(),
            Err(trouble) => return Err(trouble),
        };
        Ok(self.0.entry(id).or_insert(name).clone())
    }
}
