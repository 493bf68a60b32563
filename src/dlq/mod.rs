//! Dead letters after the fact: what lies in a dead-letter topic, and sending it again.
//!
//! What was sent again is remembered in the dead-letter topic itself: a *mark*, written in the
//! transaction that sends the records, names their offsets. So a record is sent again once or not
//! at all, whatever is killed and whichever filters are used; and a mark lives exactly as long as
//! what it tells of, since it comes after it in the same partition.
//!
//! | file | job |
//! |---|---|
//! | `letter` | reads a dead letter's headers |
//! | `filter` | which dead letters are meant |
//! | `marks` | which were sent again |
//! | `choice` | what becomes of each: sent again, or left and why |
//! | `survey`, `shown` | counts and rows of a topic; one record, whole |
//! | `topic`, `redrive` | the parts that speak to Kafka |

mod choice;
mod error;
mod filter;
mod letter;
mod marks;
mod redrive;
mod shown;
mod survey;
mod topic;

use schemars::{Schema, schema_for};

pub use choice::{Choice, Left, Rules, Timestamps};
pub use error::DlqError;
pub use filter::Filter;
pub use letter::{Letter, Source};
pub use marks::{MARK_HEADER, MARK_SCHEMA, Mark, Marks, OffsetSet};
pub use redrive::{
    REDRIVE_SCHEMA, RedriveReport, RedriveRequest, Sent, dry_run, redrive, transactional_id,
};
pub use shown::{Bytes, RECORD_SCHEMA, ShownHeader, ShownRecord};
pub use survey::{Count, LIST_SCHEMA, Listing, Row, list};
pub use topic::{DeadLetterTopic, Found};

/// The JSON Schemas of what is written here, by the value of `schema` in it.
pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        (LIST_SCHEMA, schema_for!(Listing)),
        (RECORD_SCHEMA, schema_for!(ShownRecord)),
        (REDRIVE_SCHEMA, schema_for!(RedriveReport)),
        (MARK_SCHEMA, schema_for!(Mark)),
    ]
}
