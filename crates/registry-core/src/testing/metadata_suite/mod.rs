//! What every metadata store must do: the one list of cases.
//!
//! An adapter's test target says how a fresh store is made and gets a named test for each case:
//!
//! ```text
//! registry_core::metadata_suite!(a_fresh_store().await);
//! ```

pub mod blobs;
pub mod concurrency;
pub mod finalising;
pub mod garbage;
pub mod ledger;
pub mod manifests;
pub mod packages;
pub mod races;
pub mod referrers;
pub mod registries;
pub mod sessions;
pub mod small;
pub mod tags;
mod world;

use std::sync::Arc;

pub use self::world::{CandidatesOf, World, at};
use crate::ports::metadata::Metadata;

/// A metadata store to be tested; it holds nothing yet.
pub trait Subject: Send + Sync {
    /// The store. Each call may give another instance over the same content, as another replica would have.
    fn store(&self) -> Arc<dyn Metadata>;
}

/// Yields a named test for each case. The argument is an expression for a fresh [`Subject`], which may `await`.
///
/// `metadata_suite!(fn every_case = …)` yields one async function instead, which runs all cases one after another: for
/// tests that watch an adapter while it does everything.
#[macro_export]
macro_rules! metadata_suite {
    (fn $name:ident = $subject:expr) => {
        $crate::metadata_suite! { @list [@function $name $subject] }
    };
    ($subject:expr) => {
        $crate::metadata_suite! { @list [@tests $subject] }
    };
    (@list [$($form:tt)+]) => {
        $crate::metadata_suite! { $($form)+;
            registries {
                registries_are_listed_by_name
                a_registry_is_made_once
                settings_are_replaced
                a_registry_and_a_first_segment_exclude_each_other
                only_what_stands_first_is_exclusive
                repositories_are_listed_while_they_hold_a_manifest
                repositories_come_in_pages_and_ranges
                the_store_answers
            }
            sessions {
                a_new_session_is_open_and_empty
                a_repository_exists_from_its_first_upload
                a_writer_begins_where_the_client_was_told
                a_writer_begins_at_the_durable_offset
                a_writer_elsewhere_is_told_the_durable_offset
                no_writer_begins_when_the_session_is_not_open
                only_the_newest_writer_records
                telling_moves_the_beginning
                an_open_or_finalising_session_can_be_ended
                a_done_session_ends_only_when_idle
                only_an_ended_session_is_removed
                idle_and_ended_sessions_are_listed_oldest_first
            }
            finalising {
                sealing_reserves_the_plain_key
                a_superseded_writer_seals_nothing
                sealing_again_answers_the_same
                a_key_with_a_row_is_passed_over
                a_committed_blob_is_visible_and_live
                stored_bytes_are_committed_at_once
                committing_again_is_the_same
                nothing_else_is_committed
                the_blob_that_came_first_is_kept
                a_version_is_published
                a_version_that_exists_stays_as_it_is
                a_version_that_exists_stays_when_its_bytes_are_stored
                a_commit_leases_as_long_as_it_was_asked
                a_commit_leaves_longer_leases_and_reviewed_memberships
                a_blob_can_be_stored_that_nothing_refers_to
            }
            blobs {
                a_blob_is_found_only_where_it_is_visible
                a_push_renews_a_lease_with_less_than_half_left
                a_push_finds_an_expired_lease_and_renews_it
                a_push_writes_nothing_for_a_reviewed_membership
                the_repositories_of_a_blob_are_found
                a_mount_makes_a_blob_visible_for_its_lease
                a_mount_of_what_is_not_there_leaves_no_trace
                a_mount_under_a_registrys_name_leaves_no_trace
                a_mount_prolongs_and_never_shortens
                a_blob_is_deleted_from_one_repository
                a_blob_that_a_manifest_names_is_not_deleted
            }
            manifests {
                a_manifest_is_found_byte_for_byte
                sent_again_it_changes_nothing
                what_is_missing_is_listed_and_nothing_stored
                what_is_missing_does_not_matter_when_lenient
                a_child_is_there_as_a_manifest_or_as_a_blob
                a_manifest_under_a_registrys_name_is_refused
                deleting_a_manifest_takes_its_tags_with_it
                deleting_a_manifest_leases_what_it_named
                a_manifest_with_many_descriptors_is_stored
            }
            tags {
                a_tag_points_at_the_last_manifest_put
                deleting_a_tag_deletes_nothing_else
                tags_change_only_where_the_precondition_holds
                tags_come_in_pages_in_byte_order
                tags_of_all_repositories_come_in_pages
                tags_of_all_repositories_come_in_ranges
            }
            referrers {
                referrers_are_listed_with_their_facts
                referrers_come_in_pages_and_by_type
                a_page_of_referrers_is_bounded_in_bytes
                the_subject_need_not_be_there
            }
            packages {
                versions_come_in_the_order_of_versions
                packages_are_summed_up
                packages_come_in_pages_and_ranges
                a_search_finds_parts_of_names
                a_search_comes_in_pages_and_ranges
                the_last_version_takes_the_package_with_it
                a_version_is_deleted_only_where_the_precondition_holds
                a_deleted_version_makes_its_blob_garbage
            }
            garbage {
                a_review_drops_what_no_manifest_names
                a_review_looks_at_what_is_due_and_no_more
                a_child_protects_a_blob_too
                a_referenced_blob_is_not_collected
                an_unreferenced_blob_is_collected_once
                a_collected_blob_can_be_pushed_again
                a_preview_counts_what_a_collection_deletes
            }
            ledger {
                the_ledger_is_read_in_pages
                doomed_objects_are_read_in_pages
                only_a_doomed_row_is_cleared
                an_orphan_gets_a_doomed_row
                a_forgotten_blob_is_in_no_repository
                a_blob_of_a_package_is_not_forgotten
                a_blob_that_was_stored_again_is_not_forgotten
            }
            small {
                a_token_reads_back
                tokens_come_in_pages
                a_deleted_token_is_gone
                a_token_is_stored_once
                the_newest_signing_key_is_first
                a_signing_key_is_rotated_when_none_is_new
                two_that_rotate_at_once_insert_one_key
                a_job_remembers_its_cursor
            }
            concurrency {
                one_object_becomes_the_blob_of_many_sessions
                one_of_many_publishes_a_version
                writers_at_once_get_epochs_of_their_own
                commit_and_end_at_once_agree
                a_dropped_intention_happens_whole_or_not_at_all
                reads_see_every_acknowledged_write
            }
            races {
                sessions_sealed_at_once_get_keys_of_their_own
                a_session_sealed_or_committed_twice_at_once_is_so_once
                a_review_and_a_manifest_agree
                deleting_a_blob_and_a_manifest_that_names_it_agree
                reviews_at_once_share_the_work
                a_collection_and_who_wants_the_blob_agree
                a_mount_and_the_end_of_its_source_agree
                a_repository_is_listed_while_it_holds_a_manifest_whoever_comes_and_goes
                a_manifest_that_is_deleted_and_stored_at_once_is_whole
                manifests_with_the_same_tags_and_blobs_are_stored_at_once
                of_those_who_expect_the_same_tag_one_wins
                versions_that_come_and_go_at_once_are_counted
                the_last_version_goes_while_another_comes
                a_registry_is_made_by_one_of_many
                a_registry_and_a_repository_made_at_once_exclude_each_other
            }
        }
    };
    (@function $name:ident $subject:expr; $($group:ident { $($case:ident)+ })+) => {
        async fn $name() {
            $($({
                let subject = $subject;
                $crate::testing::metadata_suite::$group::$case(&subject).await;
            })+)+
        }
    };
    (@tests $subject:expr; $($group:ident { $($case:ident)+ })+) => {
        $(mod $group {
            #[expect(unused_imports, reason = "the expression for the subject may need what its file imports")]
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                let subject = $subject;
                $crate::testing::metadata_suite::$group::$case(&subject).await;
            })+
        })+
    };
}
