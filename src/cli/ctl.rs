//! `tandem ctl`: talks to the running node through its control socket.
//!
//! Passwords are asked for or read from stdin: what stands on a command line is seen by every
//! user of the host.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::admin::Exit;
use crate::admin::client::{self, CallFault, Format};
use crate::admin::protocol::{Request, Response, Secret};
use crate::cli::output::{colour_note, note, note_text, say_text};
use crate::cli::{CtlArgs, CtlCommand, Output, PageArgs, PasswordArgs, RuleArgs, UserCommand};
use crate::config;

/// Asks, shows the answer, ends with its code.
pub(super) fn ctl(args: CtlArgs) -> Exit {
    let socket = match socket(&args) {
        Ok(socket) => socket,
        Err(exit) => return exit,
    };
    let format = if args.output == Output::Json { Format::Json } else { Format::Text };
    let request = match request(args.command) {
        Ok(Asked::Once(request)) => request,
        Ok(Asked::Import) => return import(&socket, format),
        Err(text) => {
            note(format!("tandem ctl: {text}"));
            return Exit::Usage;
        }
    };
    show(&request, client::call(&socket, &request), format)
}

fn show(request: &Request, answer: Result<Response, CallFault>, format: Format) -> Exit {
    match answer {
        Ok(response) => {
            if let (Some(error), Format::Text) = (&response.error, format)
                && error.text.contains('\n')
            {
                // Findings keep their lines, so that the caret stands below its place.
                error.text.lines().for_each(|it| note(safe(it)));
                return client::exit(&response);
            }
            let text = client::render(request, &response, format);
            // A refusal is no result, unless a program reads it.
            if response.ok || format == Format::Json {
                say_text(&text)
            } else {
                note_text(&text)
            }
            client::exit(&response)
        }
        Err(fault) => {
            note(format!("tandem ctl: {fault}"));
            fault.exit()
        }
    }
}

/// A line that steers no terminal.
fn safe(line: &str) -> String {
    line.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
}

fn socket(args: &CtlArgs) -> Result<PathBuf, Exit> {
    let Some(path) = &args.config else { return Ok(args.socket.clone()) };
    match config::load(path) {
        Ok(loaded) => Ok(loaded.admin.socket),
        Err(found) => {
            note_text(&found.render(colour_note()));
            Err(Exit::Config)
        }
    }
}

enum Asked {
    Once(Request),
    Import,
}

fn request(command: CtlCommand) -> Result<Asked, String> {
    Ok(Asked::Once(match command {
        CtlCommand::Status => Request::Status,
        CtlCommand::Domains => Request::Domains,
        CtlCommand::Streams { limit } => Request::Streams { limit },
        CtlCommand::Reload => Request::Reload,
        CtlCommand::Stop => Request::Stop,
        CtlCommand::User(UserCommand::Add(args)) => {
            Request::UserAdd { password: password(&args)?, address: args.address }
        }
        CtlCommand::User(UserCommand::Passwd(args)) => {
            Request::UserPasswd { password: password(&args)?, address: args.address }
        }
        CtlCommand::User(UserCommand::Del { address }) => Request::UserDelete { address },
        CtlCommand::User(UserCommand::List { after, limit }) => Request::UserList { after, limit },
        CtlCommand::User(UserCommand::Allow(RuleArgs { address, pattern })) => {
            Request::UserAllow { address, pattern }
        }
        CtlCommand::User(UserCommand::Block(RuleArgs { address, pattern })) => {
            Request::UserBlock { address, pattern }
        }
        CtlCommand::User(UserCommand::Unlist(RuleArgs { address, pattern })) => {
            Request::UserUnlist { address, pattern }
        }
        CtlCommand::User(UserCommand::Lists(PageArgs { address, after, limit })) => {
            Request::UserLists { address, after, limit }
        }
        CtlCommand::User(UserCommand::Roster(PageArgs { address, after, limit })) => {
            Request::UserRoster { address, after, limit }
        }
        CtlCommand::User(UserCommand::Import) => return Ok(Asked::Import),
    }))
}

/// From the command line, a prompt without echo, or the first line of stdin.
fn password(args: &PasswordArgs) -> Result<Secret, String> {
    if let Some(password) = &args.password {
        return Ok(Secret(password.clone()));
    }
    if !std::io::stdin().is_terminal() {
        return first_line().map(Secret);
    }
    let _quiet = Quiet::new();
    note_text(&format!("password for {}: ", args.address));
    let first = first_line()?;
    note_text("\nonce more: ");
    let second = first_line()?;
    note("");
    if first == second {
        Ok(Secret(first))
    } else {
        Err("the two passwords differ; nothing was done".to_owned())
    }
}

fn first_line() -> Result<String, String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|it| it.to_string())?;
    let line = line.trim_end_matches(['\r', '\n']);
    if line.is_empty() { Err("no password was given".to_owned()) } else { Ok(line.to_owned()) }
}

/// A terminal that shows nothing of what is typed. By stty, since only `net` may call the kernel.
struct Quiet;

impl Quiet {
    fn new() -> Self {
        stty("-echo");
        Self
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        stty("echo");
    }
}

fn stty(how: &str) {
    // Without stty the password is seen by who stands behind, which is no reason to refuse.
    Command::new("stty").arg(how).stdin(Stdio::inherit()).status().ok();
}

fn import(socket: &Path, format: Format) -> Exit {
    let mut text = String::new();
    if let Err(fault) = std::io::stdin().lock().read_to_string(&mut text) {
        note(format!("tandem ctl: {fault}"));
        return Exit::Usage;
    }
    let users = match client::parse_import(&text) {
        Ok(users) => users,
        Err(faults) => {
            for fault in faults {
                note(format!("tandem ctl: {fault}"));
            }
            return Exit::Usage;
        }
    };
    let answer =
        client::import(socket, &users, |done| note(format!("{done} of {} users", users.len())));
    show(&Request::UserImport { users: Vec::new() }, answer, format)
}

/// Adds an account.
pub(super) fn add_user(socket: &Path, address: &str, password: &str) -> Result<(), String> {
    let password = Secret(password.to_owned());
    ask(socket, &Request::UserAdd { address: address.to_owned(), password })
}

/// Ends the node.
pub(super) fn stop(socket: &Path) -> Result<(), String> {
    ask(socket, &Request::Stop)
}

fn ask(socket: &Path, request: &Request) -> Result<(), String> {
    let response = client::call(socket, request).map_err(|it| it.to_string())?;
    response.error.map_or(Ok(()), |it| Err(it.text))
}
