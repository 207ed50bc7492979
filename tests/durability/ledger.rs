//! An object whose writes show when one was lost, torn or made twice.

use std::collections::BTreeSet;

use stubborn::clock::Clock;
use stubborn::{
    AlarmInfo, DurableObject, Env, List, Request, Response, Result, State, Storage, respond,
};

/// The namespace of ledgers.
pub(crate) const LEDGER: &str = "LEDGER";
/// The accounts of a ledger, in keys and in SQL, and what each begins with.
const ACCOUNTS: u64 = 8;
const EACH: i64 = 100;
/// What all accounts have together, always.
pub(crate) const SUM: i64 = ACCOUNTS as i64 * EACH;

/// An object that counts, and moves amounts between accounts.
pub(crate) struct Ledger(State);

impl DurableObject for Ledger {
    async fn new(state: State, _: Env) -> Result<Self> {
        let (storage, sql) = (state.storage(), state.storage().sql());
        storage.transaction_sync(|| {
            if storage.get::<i64>("account/0")?.is_some() {
                return Ok(());
            }
            sql.exec(
                "CREATE TABLE accounts (n INTEGER PRIMARY KEY, amount); CREATE TABLE ops (op)",
                (),
            )?;
            for n in 0..ACCOUNTS {
                storage.put(&format!("account/{n}"), &EACH)?;
                sql.exec("INSERT INTO accounts VALUES (?, ?)", (n as i64, EACH))?;
            }
            Ok(())
        })?;
        Ok(Self(state))
    }

    /// `/KIND/OP/SEED`, or `/check`.
    async fn fetch(&self, request: Request) -> Result<Response> {
        let path = request.uri().path().to_owned();
        let words: Vec<&str> = path.split('/').skip(1).collect();
        let [kind, op, seed] = words[..] else { return Ok(respond::text(self.check()?)) };
        let (storage, seed) = (self.0.storage(), seed.parse::<u64>().unwrap());
        let (from, to) = (seed % ACCOUNTS, seed / ACCOUNTS % ACCOUNTS);
        let by = (seed % 7) as i64;
        let key = format!("op/{op}");
        match kind {
            // Several writes and no wait: one batch.
            "count" => {
                storage.put("count", &(storage.get::<u64>("count")?.unwrap_or(0) + 1))?;
                storage.put(&key, &1)?;
            }
            "put" => storage.put(&key, &"x".repeat((seed % 5_000) as usize))?,
            "move" => {
                let moves = async {
                    self.add(&format!("account/{from}"), -by)?;
                    tokio::task::yield_now().await;
                    self.add(&format!("account/{to}"), by)?;
                    storage.put(&key, &2)
                };
                storage.transaction(moves).await?;
            }
            "sql" => {
                let sql = storage.sql();
                storage.transaction_sync(|| {
                    let change = "UPDATE accounts SET amount = amount + ? WHERE n = ?";
                    sql.exec(change, (-by, from as i64))?;
                    sql.exec(change, (by, to as i64))?;
                    sql.exec("INSERT INTO ops VALUES (?)", (op,))?;
                    // In keys and in SQL, as one.
                    self.add("sql-moves", 1)
                })?;
            }
            "alarm" => {
                storage.set_alarm(Clock::system().unix_ms() + seed % 300)?;
                storage.put("last-alarm", op)?;
                storage.put(&key, &3)?;
            }
            _ => return Err(format!("no such kind: {kind}").into()),
        }
        Ok(respond::text("done"))
    }

    async fn alarm(&self, alarm: AlarmInfo) -> Result<()> {
        let storage = self.0.storage();
        if Clock::system().unix_ms() < alarm.scheduled_ms {
            storage.put("early", &true)?;
        }
        let last: Option<String> = storage.get("last-alarm")?;
        storage.put("rang", &last.unwrap_or_default())
    }
}

impl Ledger {
    fn add(&self, key: &str, by: i64) -> Result<()> {
        let storage: Storage = self.0.storage();
        storage.put(key, &(storage.get::<i64>(key)?.unwrap_or(0) + by))
    }

    /// Tells all that is stored, and what is wrong with it.
    fn check(&self) -> Result<String> {
        let storage = self.0.storage();
        let sql = storage.sql();
        let mut wrong = Vec::new();
        let sum: i64 =
            storage.list::<i64>(&List::prefix("account/"))?.iter().map(|(_, amount)| amount).sum();
        let sql_sum: i64 =
            sql.exec("SELECT sum(amount) AS sum FROM accounts", ())?.one()?.get("sum")?;
        if (sum, sql_sum) != (SUM, SUM) {
            wrong.push(format!("torn: {sum} and {sql_sum}"));
        }
        let mut ops = BTreeSet::new();
        let mut counts = 0;
        storage.list_keys_into("op/", &mut |key, is_count| {
            ops.insert(key);
            counts += u64::from(is_count);
        })?;
        let count = storage.get::<u64>("count")?.unwrap_or(0);
        if count != counts {
            wrong.push(format!("count {count} of {counts} ops"));
        }
        let mut sql_ops = 0;
        for row in sql.exec("SELECT op FROM ops", ())? {
            sql_ops += 1;
            if !ops.insert(row.get("op")?) {
                wrong.push("an op was made twice".to_owned());
            }
        }
        let moves = storage.get::<i64>("sql-moves")?.unwrap_or(0);
        if moves != sql_ops {
            wrong.push(format!("{sql_ops} moves in sql, {moves} in keys"));
        }
        if storage.get::<bool>("early")?.is_some() {
            wrong.push("an alarm rang early".to_owned());
        }
        let last: Option<String> = storage.get("last-alarm")?;
        let rang: Option<String> = storage.get("rang")?;
        let waits = u8::from(last != rang);
        let ops: Vec<String> = ops.into_iter().collect();
        Ok(format!("{};{waits};{}", wrong.join(", "), ops.join(" ")))
    }
}

/// Listing keys beside what kind of operation each is of.
trait ListKeys {
    fn list_keys_into(&self, prefix: &str, visit: &mut dyn FnMut(String, bool)) -> Result<()>;
}

impl ListKeys for Storage {
    fn list_keys_into(&self, prefix: &str, visit: &mut dyn FnMut(String, bool)) -> Result<()> {
        for (key, value) in self.list::<serde_json::Value>(&List::prefix(prefix))? {
            visit(key[prefix.len()..].to_owned(), value == serde_json::json!(1));
        }
        Ok(())
    }
}
