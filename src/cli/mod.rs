//! The command line: what may be typed, and which code a command ends with.
//!
//! Results go to stdout, everything else to stderr; colour only on a terminal and never with
//! `NO_COLOR`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod check;
mod ctl;
pub mod demo;
mod output;
mod reload;
mod run;
mod tune;

use crate::admin::Exit;

/// A message switch for instant messaging and presence.
#[derive(Debug, Parser)]
#[command(
    name = "tandem",
    version,
    after_help = "Example: tandem demo\n         shows two domains in conversation, with no set-up at all"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the node, in the foreground.
    #[command(
        after_help = "Example: tandem run /etc/tandem/tandem.toml\n\nCtrl-C or SIGTERM ends it with a goodbye to everybody; SIGHUP reads the configuration again.\nExit codes: 0 ended in order, 69 a port or the store can't be had, 78 bad configuration."
    )]
    Run(RunArgs),
    /// Looks for mistakes without running anything.
    #[command(subcommand)]
    Check(CheckCommand),
    /// Talks to the running node.
    Ctl(CtlArgs),
    /// Shows two domains in conversation, with no set-up.
    #[command(
        after_help = "Example: tandem demo\n         tandem demo --once\n         tandem demo --write my-tandem\n\nNeeds neither root nor a network: everything stays on 127.0.0.1.\nExit codes: 0 all steps held, 1 one did not."
    )]
    Demo(DemoArgs),
    /// Holds this host against what a node or the load generator wants of it.
    #[command(subcommand)]
    Tune(tune::TuneCommand),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration.
    #[arg(default_value = CONFIG)]
    config: PathBuf,
    /// Stops when stdin ends: whoever started it is gone.
    #[arg(long, hide = true)]
    while_stdin: bool,
}

#[derive(Debug, Subcommand)]
enum CheckCommand {
    /// Reads a configuration as `run` does and tells all that is wrong with it.
    #[command(
        after_help = "Example: tandem check config /etc/tandem/tandem.toml\n\nExit codes: 0 good, 3 warnings and --deny-warnings, 78 errors."
    )]
    Config(CheckConfigArgs),
    /// Explains what the policy says about an address.
    #[command(
        after_help = "Example: tandem check policy tandem.toml alice@example.com carol@partner.example\n\nExit codes: 0 allowed, 1 denied, 78 bad configuration."
    )]
    Policy(CheckPolicyArgs),
}

#[derive(Debug, Args)]
struct CheckConfigArgs {
    /// The configuration.
    #[arg(default_value = CONFIG)]
    config: PathBuf,
    /// Ends with 3 if there are warnings.
    #[arg(long)]
    deny_warnings: bool,
    /// Prints only what is wrong.
    #[arg(long, short)]
    quiet: bool,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Prints all keys with their defaults and ends.
    #[arg(long)]
    keys: bool,
}

#[derive(Debug, Args)]
struct CheckPolicyArgs {
    /// The configuration.
    config: PathBuf,
    /// Who writes.
    from: String,
    /// To whom.
    to: String,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example: tandem ctl status\n         tandem ctl user add alice@example.com < password.txt\n\nExit codes: 0 done, 1 refused, 69 no node answers, 77 not allowed."
)]
struct CtlArgs {
    /// The node's socket.
    #[arg(long, env = "TANDEM_SOCKET", default_value = SOCKET, global = true)]
    socket: PathBuf,
    /// Finds the socket by the node's configuration.
    #[arg(long, global = true, conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Output,
    #[command(subcommand)]
    command: CtlCommand,
}

#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// How the node is.
    #[command(after_help = "Example: tandem ctl status")]
    Status,
    /// Accounts.
    #[command(subcommand)]
    User(UserCommand),
    /// The domains it serves.
    #[command(after_help = "Example: tandem ctl domains -o json")]
    Domains,
    /// Who is connected.
    #[command(after_help = "Example: tandem ctl streams --limit 20")]
    Streams {
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Reads the configuration again; all or nothing.
    #[command(after_help = "Example: tandem ctl reload")]
    Reload,
    /// Ends the node with a goodbye to everybody.
    #[command(after_help = "Example: tandem ctl stop")]
    Stop,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Adds an account; the password is asked for, or read from stdin.
    #[command(
        after_help = "Example: tandem ctl user add alice@example.com\n         echo 'a good password' | tandem ctl user add alice@example.com"
    )]
    Add(PasswordArgs),
    /// Gives an account another password; its streams are ended.
    #[command(after_help = "Example: tandem ctl user passwd alice@example.com")]
    Passwd(PasswordArgs),
    /// Removes an account; its streams are ended.
    #[command(after_help = "Example: tandem ctl user del alice@example.com")]
    Del {
        /// The account.
        address: String,
    },
    /// Lists accounts, a page at a time.
    #[command(after_help = "Example: tandem ctl user list --after bob@example.com --limit 50")]
    List {
        /// Begins behind this one.
        #[arg(long, default_value = "")]
        after: String,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Lets somebody see a user without asking, or everybody of a domain.
    #[command(
        after_help = "Example: tandem ctl user allow alice@example.com bob@partner.example\n         tandem ctl user allow alice@example.com partner.example"
    )]
    Allow(RuleArgs),
    /// Blocks somebody for a user, or everybody of a domain.
    #[command(
        after_help = "Example: tandem ctl user block alice@example.com mallory@partner.example\n         tandem ctl user block alice@example.com spam.example"
    )]
    Block(RuleArgs),
    /// Takes somebody, or a domain, off all lists of a user.
    #[command(
        after_help = "Example: tandem ctl user unlist alice@example.com mallory@partner.example"
    )]
    Unlist(RuleArgs),
    /// Shows whom a user has blocked, allowed or denied.
    #[command(after_help = "Example: tandem ctl user lists alice@example.com -o json")]
    Lists(PageArgs),
    /// Shows a user's contacts, a page at a time.
    #[command(after_help = "Example: tandem ctl user roster alice@example.com --limit 50")]
    Roster(PageArgs),
    /// Adds many: lines of address, a blank, password, on stdin.
    #[command(
        after_help = "Example: tandem ctl user import < accounts.txt\n         where a line is: alice@example.com a good password"
    )]
    Import,
}

#[derive(Debug, Args)]
struct PasswordArgs {
    /// The account.
    address: String,
    /// The password itself. Every user of the host can see it while the command runs.
    #[arg(long)]
    password: Option<String>,
}

#[derive(Debug, Args)]
struct RuleArgs {
    /// The account.
    address: String,
    /// A person (person@domain) or a domain.
    pattern: String,
}

#[derive(Debug, Args)]
struct PageArgs {
    /// The account.
    address: String,
    /// Begins behind this one.
    #[arg(long, default_value = "")]
    after: String,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Runs the conversation once, verifies each step and ends.
    #[arg(long)]
    once: bool,
    /// Leaves a complete, commented configuration to start from, and ends.
    #[arg(long, value_name = "DIR", conflicts_with = "once")]
    write: Option<PathBuf>,
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs; `"schema": 1`.
    Json,
}

impl Cli {
    /// Does what was asked for.
    pub fn act(self) -> Exit {
        match self.command {
            Command::Run(args) => run::run(&args.config, args.while_stdin),
            Command::Check(CheckCommand::Config(args)) => check::config(&args),
            Command::Check(CheckCommand::Policy(args)) => check::policy(&args),
            Command::Ctl(args) => ctl::ctl(args),
            Command::Demo(args) => match &args.write {
                Some(folder) => demo::write(folder),
                None => demo::demo(args.once),
            },
            Command::Tune(command) => tune::tune(&command),
        }
    }
}

/// Where the package puts it.
const CONFIG: &str = "/etc/tandem/tandem.toml";
/// Where the package's unit puts it.
const SOCKET: &str = "/run/tandem/ctl.sock";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example: tandem"), "{path}");
            }
            command.get_subcommands().for_each(|it| walk(it, &path));
        }
        walk(&Cli::command(), "");
    }
}
